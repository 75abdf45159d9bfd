"""What the pool knows of a connection, whatever it speaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from .errors import LLMPoolError
    from .exchange import Exchange
    from .homes.home import Home
    from .ledger.state import Entry
    from .request import Marks, Request

__all__ = ["Connection", "Owner"]

READ_AT_ONCE = 64 * 1024


class Owner(Protocol):
    """Who hears of a connection's fate. ``hint``: seconds the server keeps it while it is idle."""

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """A connection of the pool. Lives on one home, and is touched there only.

    ``entry`` is its line in the ledger, ``capacity`` how many exchanges it carries at a time, and
    ``announced`` whether that is the server's word. ``doubtful``: see ``stays``. ``dial_seconds`` is how
    long it took to connect; None where it connects only when a call needs it, and then tells its owner.
    """

    capacity = 1
    announced = True
    doubtful = False

    def __init__(self, home: Home, owner: Owner) -> None:
        self.home = home
        self.owner = owner
        self.entry: Entry | None = None
        self.dial_seconds: float | None = None
        self.closed = False
        self.transport: asyncio.Transport | None = None

    @abstractmethod
    def start(self, request: Request, marks: Marks) -> Exchange:
        """Send the request, or its head where the body follows. Raises nothing: the exchange tells."""

    async def stays(self) -> bool:
        """For who gets a ``doubtful`` one: whether it is there to be used. May wait a moment to find out."""
        return not self.closed

    @abstractmethod
    def close(self) -> None:
        """Close in good order; exchanges in progress fail."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if hasattr(transport, "max_size"):
            # asyncio takes memory for 256 KiB at each read, and malloc may fetch it from the system each time
            transport.max_size = READ_AT_ONCE
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.entry is not None:
            self.owner.lost(self.entry)
