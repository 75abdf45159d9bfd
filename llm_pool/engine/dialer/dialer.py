"""Opens a connection to an origin: DNS, TCP, proxy tunnel and TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from llm_pool.exceptions import ConnectFailed, ConnectTimeout, TLSFailed, reason

from ..clock import monotonic
from ..closing import abort
from ..config import Origin, PoolConfig
from ..connection import Connection, Owner
from ..http2.connection import HTTP2Connection
from ..http11.connection import HTTP11Connection
from ..http11.keep_alive import KeepAliveHistory
from ..loops.greenlets import original
from ..loops.host_loop import HostLoop
from .current_context import CurrentContext
from .proxy import Proxy, proxy_for
from .resolver import Resolver, check_host
from .steps import DialSteps
from .tls import TLS_CLOSE_SECONDS, describe, server_name
from .tunnel import open_tls_tunnel, open_tunnel, start_tls_to

__all__ = ["Dialer"]

HAPPY_EYEBALLS_DELAY = 0.25  # RFC 8305, section 5
MAX_ORIGINS = 1024  # keep-alive histories that are kept; limited, since callers choose the origins
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4  # TCP keep-alive: seconds, seconds, count


class ALPNProtocol(asyncio.Protocol):
    """Makes the connection for the protocol that ALPN selected (RFC 7301).

    The transport is then passed to the connection.

    ``make_connection``  is called with the selected protocol, or with None if there is no TLS or no ALPN;
                         returns the connection
    ``connection``       the connection that was made; None before that

    The connection must be made before the next bytes arrive: an HTTP/2 server can send its settings right
    after the handshake. asyncio makes sure of that, except for TLS in TLS: what comes before
    ``connection_made`` is kept for the connection.
    """

    def __init__(self, make_connection: Callable[[str | None], Connection]) -> None:
        self._make_connection = make_connection
        self.connection: Connection | None = None
        self._early_data = b""
        self._early_loss: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.connection = self._make_connection(tls.selected_alpn_protocol() if tls is not None else None)
        transport.set_protocol(self.connection)
        self.connection.connection_made(transport)
        if self._early_data:
            self.connection.data_received(self._early_data)
        for error in self._early_loss:
            self.connection.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._early_data += data

    def connection_lost(self, error: Exception | None) -> None:
        self._early_loss.append(error)


class Dialer:
    """Opens the connections of one pool.

    ``sockets``  the sockets that the dialer has made and that still exist
    """

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._resolver = Resolver(config.dns)
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._keep_alive_history = lru_cache(MAX_ORIGINS)(lambda _: KeepAliveHistory())
        self._tls = CurrentContext(config.tls, http2=bool(config.http2))
        self._proxy_tls = CurrentContext(replace(config.tls, client_cert=None), http2=False)

    async def dial(
        self,
        origin: Origin,
        host_loop: HostLoop,
        owner: Owner,
        timeout: float | None,
        steps: DialSteps | None = None,
    ) -> Connection:
        """Return a new connection to ``origin``.

        ``host_loop``  the running loop, which hosts the connection
        ``owner``      receives the facts about the connection
        ``timeout``    seconds for the whole dial, DNS included; None for no limit
        ``steps``      records the addresses, the duration of each step, and the step that failed; None if not
                       needed

        Raises ConnectFailed or a subclass of it: ConnectTimeout, DNSFailed, TLSFailed, ProxyFailed.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(origin, host_loop, owner, steps or DialSteps())
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {origin} within {timeout:g} s") from error

    def prepare(self, origin: Origin) -> None:
        """Start to build the TLS context if ``origin`` needs TLS. The first dial then takes less time."""
        if origin.scheme == "https":
            self._tls.look()

    def forget_parent(self) -> None:
        """In a forked child: close the copies of the parent's sockets, without sending anything on them."""
        for sock in list(self.sockets):
            descriptor = sock.detach()  # with uvloop, ``sock.close`` would wait until the transport closes
            if descriptor >= 0:
                os.close(descriptor)

    async def _dial(self, origin: Origin, host_loop: HostLoop, owner: Owner, steps: DialSteps) -> Connection:
        started_at = monotonic()
        check_host(origin.host, origin.port)
        secure = origin.scheme == "https"
        context = await self._tls.get() if secure else None
        proxy = None if self._config.uds else proxy_for(origin, self._config.proxy)
        # A proxy without a tunnel forwards the requests, which carry the headers for it.
        forwards = proxy is not None and not proxy.tunnels(origin)
        proxy_headers = proxy.headers if proxy is not None and forwards else None

        def make_connection(alpn: str | None) -> Connection:
            if not forwards and (alpn == "h2" or self._config.http2 == "prior-knowledge"):
                return HTTP2Connection(host_loop, owner, self._config.limits.max_streams_per_connection)
            history = self._keep_alive_history(origin)
            return HTTP11Connection(host_loop, owner, history, proxy_headers=proxy_headers)

        try:
            connection = await self._open(origin, proxy, context, ALPNProtocol(make_connection), steps)
        except BaseException:  # including CancelledError, which the connect timeout raises here
            self._resolver.forget(*_connect_address(origin, proxy))
            raise
        connection.dial_seconds = monotonic() - started_at
        return connection

    async def _open(
        self,
        origin: Origin,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        protocol: ALPNProtocol,
        steps: DialSteps,
    ) -> Connection:
        sock = await self._connect(origin, proxy, steps)
        below: socket.socket | asyncio.Transport = sock
        try:
            if proxy is not None and (proxy.tunnels(origin) or proxy.scheme == "https"):
                with steps.step("tunnel"):
                    below = await self._pass_proxy(sock, proxy, origin, protocol)
            if context is not None:
                with steps.step("tls"):
                    await _start_tls(below, origin, context, protocol)
            elif protocol.connection is None:
                await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
        except BaseException:
            if protocol.connection is not None:
                protocol.connection.abort()
            if not isinstance(below, socket.socket):
                abort(below)
            sock.close()
            raise
        assert protocol.connection is not None
        return protocol.connection

    async def _pass_proxy(
        self, sock: socket.socket, proxy: Proxy, origin: Origin, protocol: ALPNProtocol
    ) -> socket.socket | asyncio.Transport:
        """Open the tunnel through a proxy. Return what the connection to the origin then uses.

        With a proxy that forwards the requests over TLS, make the connection.
        """
        if proxy.scheme != "https":
            await open_tunnel(sock, proxy, origin)
            return sock
        context = await self._proxy_tls.get()
        if proxy.tunnels(origin):
            return await open_tls_tunnel(sock, proxy, origin, context)
        return await start_tls_to(proxy, sock, context, lambda: protocol)

    async def _connect(self, origin: Origin, proxy: Proxy | None, steps: DialSteps) -> socket.socket:
        try:
            if self._config.uds is not None:
                with steps.step("tcp"):
                    return await self._connect_unix(self._config.uds)
            return await self._connect_tcp(*_connect_address(origin, proxy), steps)
        except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError
            route = f" through the proxy {proxy}" if proxy is not None else ""
            route = f" at {self._config.uds}" if self._config.uds is not None else route
            raise ConnectFailed(f"no connection to {origin}{route}: {reason(error)}") from error

    async def _connect_tcp(self, host: str, port: int, steps: DialSteps) -> socket.socket:
        with steps.step("dns"):
            addresses = await self._resolver.resolve(host, port)
        steps.addresses = [info[4][0] for info in addresses]
        with steps.step("tcp"):
            return await aiohappyeyeballs.start_connection(
                addresses,
                happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY,
                socket_factory=self._make_socket,
            )

    async def _connect_unix(self, path: str) -> socket.socket:
        if not hasattr(socket, "AF_UNIX"):
            raise ConnectFailed(f"UDS {path}: Python has no Unix sockets on this system; use BASE_URL alone")
        sock = self._make_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", (path,)))
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _make_socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = info
        sock: socket.socket = original("socket", "socket")(family, kind, protocol)
        self.sockets.add(sock)
        if family in (socket.AF_INET, socket.AF_INET6):
            _enable_keepalive(sock)
        return sock


def _connect_address(origin: Origin, proxy: Proxy | None) -> tuple[str, int]:
    """Return the host and port that the socket connects to: the proxy's, or without a proxy the origin's."""
    return (proxy.host, proxy.port) if proxy is not None else (origin.host, origin.port)


async def _start_tls(
    below: socket.socket | asyncio.Transport, origin: Origin, context: ssl.SSLContext, protocol: ALPNProtocol
) -> None:
    """Do the TLS handshake with ``origin`` on a socket, or on the transport of a tunnel within TLS."""
    loop, name = asyncio.get_running_loop(), server_name(origin.tls_name or origin.host)
    try:
        if isinstance(below, socket.socket):
            await loop.create_connection(
                lambda: protocol,
                sock=below,
                ssl=context,
                server_hostname=name,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
            )
            return
        transport = await loop.start_tls(
            below, protocol, context, server_hostname=name, ssl_shutdown_timeout=TLS_CLOSE_SECONDS
        )
    except (OSError, ValueError) as error:  # ValueError: no certificate can contain the name
        raise TLSFailed(f"no TLS connection to {origin}: {describe(error)}") from error
    assert transport is not None
    protocol.connection_made(transport)


def _enable_keepalive(sock: socket.socket) -> None:
    """Enable TCP keep-alive. (The event loop sets TCP_NODELAY.)"""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # macOS and Windows have only some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
