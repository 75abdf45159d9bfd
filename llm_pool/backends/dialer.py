"""The base class of the dialers whose connections send through another library's client."""

from __future__ import annotations

import os
import socket
import ssl
import weakref
from abc import abstractmethod
from typing import cast

from llm_pool.backends.connection import BackendConnection, LibraryClient
from llm_pool.engine.config import Origin, PoolConfig
from llm_pool.engine.connection import Owner
from llm_pool.engine.dialer.dialer import Dialer
from llm_pool.engine.dialer.proxy import Proxy, proxy_for
from llm_pool.engine.dialer.resolver import check_host
from llm_pool.engine.dialer.steps import DialSteps
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.exceptions import ProxyFailed

__all__ = ["BackendDialer", "Descriptor"]


class BackendDialer(Dialer):
    """Makes connections that open when their first call is sent: ``dial`` itself does not connect."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._descriptors: weakref.WeakSet[Descriptor] = weakref.WeakSet()

    def forget_parent(self) -> None:
        """See ``Dialer.forget_parent``."""
        for descriptor in list(self._descriptors):
            descriptor.forget_parent()

    def track_socket(self, sock: object) -> Descriptor:
        """Register a socket that a library's client has opened. Return its ``Descriptor``.

        The client must keep the ``Descriptor`` until the socket is closed. In the child of a fork,
        ``forget_parent`` uses the ``Descriptor``.
        """
        descriptor = Descriptor(cast("socket.socket", sock).fileno())
        self._descriptors.add(descriptor)
        return descriptor

    async def _dial(
        self, origin: Origin, host_loop: HostLoop, owner: Owner, steps: DialSteps
    ) -> BackendConnection:
        check_host(origin.host, origin.port)
        config = self._config
        secure = origin.scheme == "https"
        context = await self._tls.get() if secure else None
        proxy = None if config.uds else proxy_for(origin, config.proxy)
        if proxy is not None and proxy.scheme == "socks5":
            raise ProxyFailed(f"only the engine 'native' supports a SOCKS proxy such as {proxy.url}")
        proxy_context = await self._proxy_tls.get() if proxy is not None and proxy.scheme == "https" else None
        # With TLS, ALPN selects HTTP/2. Without TLS, HTTP/2 needs prior knowledge (RFC 9113, section 3.3) and
        # no proxy.
        http2 = bool(config.http2) if secure else config.http2 == "prior-knowledge" and proxy is None
        max_streams = config.limits.max_streams_per_connection if http2 else 1
        client = self._make_client(origin, context, proxy, proxy_context)
        return BackendConnection(host_loop, owner, client, max_streams)

    @abstractmethod
    def _make_client(
        self,
        origin: Origin,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        proxy_context: ssl.SSLContext | None,
    ) -> LibraryClient:
        """Return a library's client with at most one connection, to ``origin``. Does not connect.

        ``context`` is None for a connection without TLS. ``proxy`` is None for a connection without a proxy,
        and ``proxy_context`` for one without TLS to the proxy.
        """


class Descriptor:
    """The file descriptor of a socket that another library owns.

    In the child of a fork, ``forget_parent`` drops the parent's socket without writing to the socket, and
    keeps the descriptor open. The library's objects in the child still use the number of the descriptor. If a
    new socket of the child got this number, the objects would write to that socket.
    """

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._identity = _identity(fileno)

    def forget_parent(self) -> None:
        """Replace the socket by ``/dev/null``, if the descriptor still refers to it. For a forked child."""
        if _identity(self._fileno) == self._identity:
            devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(devnull, self._fileno, inheritable=False)
            os.close(devnull)


def _identity(fileno: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fileno)
    except OSError:
        return None
    return status.st_dev, status.st_ino
