"""From an origin to a connection: name, address, TCP, proxy tunnel, TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from llm_pool.exceptions import ConnectFailed, ConnectTimeout, TLSFailed, reason

from ..config import Origin, PoolConfig
from ..connection import Connection, Owner
from ..http2.connection import HTTP2Connection
from ..http11.connection import HTTP11Connection
from ..http11.persistence import Persistence
from ..loops.host_loop import HostLoop
from ..loops.threads import in_thread
from .proxy import Proxy, open_tunnel, proxy_for
from .resolver import Resolver, check_host
from .steps import DialSteps
from .tls import build_context, describe, server_name

__all__ = ["Dialer"]

HAPPY_EYEBALLS_DELAY = 0.25  # RFC 8305, section 5
TLS_CLOSE_SECONDS = 1.0  # how long a close waits for the peer's goodbye
MOST_ORIGINS = 1024
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4


class ALPNProtocol(asyncio.Protocol):
    """Hands a new transport to the connection that ``choose`` makes for ALPN's protocol (RFC 7301).

    It does so as soon as the handshake ends: an HTTP/2 server may send its settings right behind it.
    """

    def __init__(self, choose: Callable[[str | None], Connection]) -> None:
        self._choose = choose
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.connection = self._choose(tls.selected_alpn_protocol() if tls is not None else None)
        transport.set_protocol(self.connection)
        self.connection.connection_made(transport)


class Dialer:
    """Opens connections for one pool."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._resolver = Resolver(config.dns)
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # all that are alive
        self._persistence_of = lru_cache(MOST_ORIGINS)(lambda _: Persistence())
        self._context: Future[ssl.SSLContext] | None = None
        self._context_lock = threading.Lock()

    async def dial(
        self,
        origin: Origin,
        host_loop: HostLoop,
        owner: Owner,
        timeout: float | None,
        steps: DialSteps | None = None,
    ) -> Connection:
        """A new connection to ``origin``; ``timeout`` in seconds. Raises ConnectFailed and its kin.

        ``steps`` takes down how long each part of the dial took, and which one failed.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(origin, host_loop, owner, steps or DialSteps())
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {origin} within {timeout:g} s") from error

    def prepare(self, origin: Origin) -> None:
        """Begin what the first dial would wait for."""
        if origin.scheme == "https":
            self._begin_tls_context()

    def forget_parent(self) -> None:
        """In the child of a fork: close the parent's sockets here, without a word on them."""
        for sock in list(self.sockets):
            descriptor = sock.detach()  # a mere close would wait for the transport, under uvloop
            if descriptor >= 0:
                os.close(descriptor)

    async def _dial(self, origin: Origin, host_loop: HostLoop, owner: Owner, steps: DialSteps) -> Connection:
        began = time.monotonic()
        check_host(origin.host, origin.port)
        secure = origin.scheme == "https"
        context = await self._tls_context() if secure else None
        proxy = None if self._config.uds else proxy_for(origin, self._config.proxy)
        forward = proxy.headers if proxy is not None and not secure else None

        def choose(alpn: str | None) -> Connection:
            if alpn == "h2" or (self._config.http2 == "prior-knowledge" and forward is None):
                return HTTP2Connection(host_loop, owner, self._config.limits.max_streams_per_connection)
            return HTTP11Connection(host_loop, owner, self._persistence_of(origin), forward=forward)

        try:
            connection = await self._open(origin, proxy, context, ALPNProtocol(choose), steps)
        except BaseException:  # a timeout comes as a cancellation
            host, port = _next_stop(origin, proxy)
            self._resolver.forget(host, port)
            raise
        connection.dial_seconds = time.monotonic() - began
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
        try:
            if proxy is not None and context is not None:
                with steps.step("tunnel"):
                    await open_tunnel(sock, proxy, origin)
            if context is None:
                await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
            else:
                with steps.step("tls"):
                    await _shake_hands(sock, origin, context, protocol)
        except BaseException:
            if protocol.connection is not None:
                protocol.connection.abort()
            sock.close()
            raise
        assert protocol.connection is not None
        return protocol.connection

    async def _connect(self, origin: Origin, proxy: Proxy | None, steps: DialSteps) -> socket.socket:
        try:
            if self._config.uds is not None:
                with steps.step("tcp"):
                    return await self._connect_unix(self._config.uds)
            return await self._connect_tcp(*_next_stop(origin, proxy), steps)
        except (OSError, RuntimeError) as error:  # the latter is uvloop's
            through = f" through the proxy {proxy}" if proxy is not None else ""
            through = f" at {self._config.uds}" if self._config.uds is not None else through
            raise ConnectFailed(f"no connection to {origin}{through}: {reason(error)}") from error

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
        sock = socket.socket(family, kind, protocol)
        self.sockets.add(sock)
        if family != socket.AF_UNIX:
            _tune(sock)
        return sock

    def _begin_tls_context(self) -> Future[ssl.SSLContext]:
        # Reading the trust store takes tens of milliseconds: not on an event loop.
        with self._context_lock:
            if self._context is None:
                self._context = in_thread(build_context, self._config.tls, http2=bool(self._config.http2))
            return self._context

    async def _tls_context(self) -> ssl.SSLContext:
        try:
            return await asyncio.wrap_future(self._begin_tls_context())
        except TLSFailed:
            self._context = None  # the files may be there next time
            raise


def _next_stop(origin: Origin, proxy: Proxy | None) -> tuple[str, int]:
    """Host and port that the socket connects to."""
    return (proxy.host, proxy.port) if proxy is not None else (origin.host, origin.port)


async def _shake_hands(
    sock: socket.socket, origin: Origin, context: ssl.SSLContext, protocol: ALPNProtocol
) -> None:
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: protocol,
            sock=sock,
            ssl=context,
            server_hostname=server_name(origin.host),
            ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
        )
    except (OSError, ValueError) as error:  # the latter for a name that no certificate can hold
        raise TLSFailed(f"no TLS connection to {origin}: {describe(error)}") from error


def _tune(sock: socket.socket) -> None:
    """TCP keep-alive. TCP_NODELAY is set by the event loop."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # macOS and Windows name fewer
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
