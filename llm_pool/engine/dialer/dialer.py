"""From an origin to a connection: name, address, TCP, proxy tunnel, TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
import weakref
from concurrent.futures import Future
from functools import lru_cache

import aiohappyeyeballs

from ..config import Origin, PoolConfig
from ..connection import Connection, Owner
from ..errors import ConnectFailed, ConnectTimeout, TLSFailed, reason
from ..homes.home import Home
from ..homes.threads import in_thread
from ..http2.connection import HTTP2Connection
from ..http11.connection import HTTP11Connection
from ..http11.persistence import Persistence
from .greeter import Greeter
from .proxy import Proxy, open_tunnel, proxy_for
from .resolver import AddrInfo, Resolver, check_host
from .steps import DialSteps
from .tls import build_context, describe, server_name

__all__ = ["Dialer"]

HAPPY_EYEBALLS_DELAY = 0.25  # RFC 8305, section 5
TLS_CLOSE_SECONDS = 1.0  # how long a close waits for the peer's goodbye
MOST_ORIGINS = 1024
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4


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
        home: Home,
        owner: Owner,
        timeout: float | None,
        steps: DialSteps | None = None,
    ) -> Connection:
        """A new connection to ``origin``; ``timeout`` in seconds. Raises ConnectFailed and its kin.

        ``steps`` takes down how long each part of the dial took, and which one failed.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(origin, home, owner, steps or DialSteps())
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {origin} within {timeout:g} s") from error

    def prepare(self, origin: Origin) -> None:
        """Begin what the first dial would wait for."""
        if origin.scheme == "https":
            self._begin_tls_context()

    def disown(self) -> None:
        """In the child of a fork: close the parent's sockets here, without a word on them."""
        for sock in list(self.sockets):
            descriptor = sock.detach()  # a mere close would wait for the transport, under uvloop
            if descriptor >= 0:
                os.close(descriptor)

    async def _dial(self, origin: Origin, home: Home, owner: Owner, steps: DialSteps) -> Connection:
        began = time.monotonic()
        check_host(origin.host, origin.port)
        secure = origin.scheme == "https"
        context = await self._tls_context() if secure else None
        proxy = None if self._config.uds else proxy_for(origin, self._config.proxy)
        forward = proxy.headers if proxy is not None and not secure else None

        def choose(protocol: str | None) -> Connection:
            if protocol == "h2" or (self._config.http2 == "prior-knowledge" and forward is None):
                return HTTP2Connection(home, owner, self._config.limits.max_streams_per_connection)
            return HTTP11Connection(home, owner, self._persistence_of(origin), forward=forward)

        try:
            connection = await self._open(origin, proxy, context, Greeter(choose), steps)
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
        greeter: Greeter,
        steps: DialSteps,
    ) -> Connection:
        sock = await self._connect(origin, proxy, steps)
        try:
            if proxy is not None and context is not None:
                with steps.step("tunnel"):
                    await open_tunnel(sock, proxy, origin)
            if context is None:
                await asyncio.get_running_loop().create_connection(lambda: greeter, sock=sock)
            else:
                with steps.step("tls"):
                    await _shake_hands(sock, origin, context, greeter)
        except BaseException:
            if greeter.connection is not None:
                greeter.connection.abort()
            sock.close()
            raise
        assert greeter.connection is not None
        return greeter.connection

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

    def _make_socket(self, info: AddrInfo) -> socket.socket:
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
    sock: socket.socket, origin: Origin, context: ssl.SSLContext, greeter: Greeter
) -> None:
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: greeter,
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
