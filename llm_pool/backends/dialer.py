"""What the dialers of other libraries' clients have in common."""

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

__all__ = ["BackendDialer", "Descriptor"]


class BackendDialer(Dialer):
    """Gives connections that dial by themselves when they are first used."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._descriptors: weakref.WeakSet[Descriptor] = weakref.WeakSet()

    def forget_parent(self) -> None:
        """See ``Dialer.forget_parent``."""
        for descriptor in list(self._descriptors):
            descriptor.forget_parent()

    def opened(self, sock: object) -> Descriptor:
        """A client has opened a socket; what comes back is to be kept as long as the client."""
        descriptor = Descriptor(cast("socket.socket", sock).fileno())
        self._descriptors.add(descriptor)
        return descriptor

    async def _dial(
        self, origin: Origin, host_loop: HostLoop, owner: Owner, steps: DialSteps
    ) -> BackendConnection:
        check_host(origin.host, origin.port)
        config = self._config
        secure = origin.scheme == "https"
        context = await self._tls_context() if secure else None
        proxy = None if config.uds else proxy_for(origin, config.proxy)
        # By ALPN under TLS; with prior knowledge everywhere but on the way to a proxy that forwards.
        http2 = bool(config.http2) if secure else config.http2 == "prior-knowledge" and proxy is None
        most_streams = config.limits.max_streams_per_connection if http2 else 1
        return BackendConnection(host_loop, owner, self._client(origin, context, proxy), most_streams)

    @abstractmethod
    def _client(self, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None) -> LibraryClient:
        """A client for one connection, to ``origin`` and nothing else."""


class Descriptor:
    """A socket in the hands of another library.

    In the child of a fork the parent's is let go without a word on it. Its number stays taken, so that
    whoever still believes in it here can do no harm.
    """

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._identity = _identity(fileno)

    def forget_parent(self) -> None:
        """Put nothing in the place of the socket, if it is still there."""
        if _identity(self._fileno) == self._identity:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, self._fileno, inheritable=False)
            os.close(nothing)


def _identity(fileno: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fileno)
    except OSError:
        return None
    return status.st_dev, status.st_ino
