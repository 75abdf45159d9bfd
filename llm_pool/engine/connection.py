"""The interface of a connection of any protocol, and the interface of its owner."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from llm_pool.exceptions import ConnectFailed, LLMPoolError, in_parentheses

from .tls_alerts import client_cert_error
from .unread import read_unread, unread_check

if TYPE_CHECKING:
    from .config import Origin
    from .exchange import Exchange
    from .ledger.state import Entry
    from .loops.host_loop import HostLoop
    from .request import Request

__all__ = ["Connection", "Owner"]

MAX_READ = 64 * 1024  # bytes per read


class Owner(Protocol):
    """Has a method for each fact that a connection reports. In a pool the owner is the ``Coordinator``.

    The argument ``hint`` of ``released`` is the number of seconds for which the server keeps an idle
    connection open; None if not announced.
    """

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """A connection of the pool. It belongs to one host loop, and is used only on that loop.

    ``host_loop``     the event loop that the connection belongs to
    ``owner``         receives the facts about the connection
    ``entry``         the connection's record in the ledger; None before its dial has ended
    ``capacity``      how many exchanges the connection can carry at a time
    ``announced``     whether ``capacity`` is certain: announced by the server, or 1 for HTTP/1.1
    ``unverified``    whether ``is_still_open`` must be called before the next use, even without unread input
    ``dial_seconds``  seconds that the dial took; None before its end, and for connections of ``backends``,
                      which connect when the first call is sent
    ``closed``        whether the connection has closed
    ``loss``          why the connection has closed: the transport's error, or a ProtocolError; None if closed
                      without an error, or not at all
    ``transport``     asyncio's transport; None before the dial has connected, and for connections of
                      ``backends``
    """

    capacity = 1
    announced = True
    unverified = False

    def __init__(self, host_loop: HostLoop, owner: Owner) -> None:
        self.host_loop = host_loop
        self.owner = owner
        self.entry: Entry | None = None
        self.dial_seconds: float | None = None
        self.closed = False
        self.loss: Exception | None = None
        self.transport: asyncio.Transport | None = None
        self._unread_check: Callable[[], object] | None = None

    @abstractmethod
    def start(self, request: Request) -> Exchange:
        """Begin to send a request, or only its head if ``request.body`` is None. Return its exchange.

        If the connection has closed or accepts no more calls, raises nothing: ``Exchange.error`` is set.
        """

    def has_unread(self) -> bool:
        """Return whether the socket of an idle connection has input that the host loop has not read yet.

        Such a connection must not be used before ``is_still_open`` has returned True: the input can be the
        server's close, or a response that no call has requested.
        """
        return self._unread_check is not None and bool(self._unread_check())

    async def is_still_open(self) -> bool:
        """Return whether the connection, which has unread input or is ``unverified``, can be used.

        Waits until the host loop has read the input. Can wait some milliseconds to find out whether the
        server closes the connection.
        """
        await read_unread(self.has_unread)
        return not self.closed

    def lost_before_use(self, origin: Origin) -> LLMPoolError:
        """Return the error for a connection to ``origin`` that has closed before its first use."""
        if isinstance(self.loss, LLMPoolError):
            return self.loss
        why = in_parentheses(self.loss)
        return client_cert_error(self.loss, origin) or ConnectFailed(
            f"no connection to {origin}: the server closed it before a request was sent{why}"
        )

    @abstractmethod
    def close(self) -> None:
        """Close the connection as its protocol prescribes. Exchanges in progress fail with PoolClosed."""

    @abstractmethod
    def abort(self) -> None:
        """Close the connection at once, even if not all data has been sent. Exchanges in progress fail."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if hasattr(transport, "max_size"):
            # asyncio allocates 256 KiB for each read, and malloc may get them from the system each time.
            transport.max_size = MAX_READ
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is unrelated
        self._unread_check = unread_check(self.transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed, self.loss = True, self.loss or error
        if self.entry is not None:
            self.owner.lost(self.entry)
