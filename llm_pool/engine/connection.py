"""The interface of a connection, for every protocol, and of its owner."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from llm_pool.exceptions import LLMPoolError

    from .exchange import Exchange
    from .ledger.state import Entry
    from .loops.host_loop import HostLoop
    from .request import Request

__all__ = ["Connection", "Owner"]

MAX_READ = 64 * 1024  # bytes per read


class Owner(Protocol):
    """Receives the facts about a connection. In a pool it is the ``Coordinator``: see its methods.

    ``hint``: seconds for which the server keeps the connection open while it is idle; None if not announced.
    """

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """A connection of the pool. It lives on one host loop, and is used only there.

    ``host_loop``     the event loop on which it lives
    ``owner``         receives the facts about it
    ``entry``         its record in the ledger; None before it is connected
    ``capacity``      how many exchanges it carries at a time
    ``announced``     whether the server has announced that capacity
    ``unverified``    whether to call ``is_still_open`` before the next use
    ``dial_seconds``  how long it took to connect; None if it connects only at its first call (``backends``)
    ``closed``        whether it has closed
    ``transport``     asyncio's transport; None before it is connected
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
        self.transport: asyncio.Transport | None = None

    @abstractmethod
    def start(self, request: Request) -> Exchange:
        """Send the request, or its head if the body follows. An error is set as ``Exchange.error``."""

    async def is_still_open(self) -> bool:
        """Whether an ``unverified`` connection can be used. May wait some milliseconds for its close."""
        return not self.closed

    @abstractmethod
    def close(self) -> None:
        """Close as the protocol prescribes. Exchanges in progress fail."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, whatever is still to be sent. Exchanges in progress fail."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if hasattr(transport, "max_size"):
            # asyncio allocates 256 KiB for each read. malloc may request that from the system each time.
            transport.max_size = MAX_READ
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's class

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.entry is not None:
            self.owner.lost(self.entry)
