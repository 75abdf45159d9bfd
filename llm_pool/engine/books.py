"""What the ledger writes in: lanes, entries and waiters; and the orders that it gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

from .config import Origin

__all__ = ["Close", "Dial", "Entry", "Fail", "Host", "Lane", "Order", "Serve", "Waiter"]


class Host:
    """An origin's connections over all homes, for ``max_connections_per_host``."""

    __slots__ = ("blocked", "held", "lanes")

    def __init__(self) -> None:
        self.held = 0
        self.lanes: dict[Lane, None] = {}
        self.blocked: dict[Lane, None] = {}


class Lane:
    """One origin in one home: only here can a connection meet a waiter.

    ``available`` has spare streams, the newest last; ``waiting`` is first come, first served.
    ``dialing`` counts dials on their way, ``claims`` the slots that connections being closed will leave here.
    """

    __slots__ = (
        "available",
        "capacity",
        "claims",
        "dialing",
        "failed_at",
        "failures",
        "home",
        "host",
        "minimum",
        "open",
        "origin",
        "retry_at",
        "shortage",
        "waiting",
    )

    def __init__(self, origin: Origin, home: Hashable, host: Host) -> None:
        self.origin = origin
        self.home = home
        self.host = host
        self.available: dict[Entry, None] = {}
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.open = 0
        self.dialing = 0
        self.claims = 0
        self.minimum = 0
        self.capacity = 1  # streams that the next connection is expected to carry
        self.shortage = 0  # waiters for whom nothing is on its way
        self.failures = 0  # rounds of failed dials since the last that succeeded
        self.failed_at = 0.0
        self.retry_at = 0.0

    @property
    def held(self) -> int:
        """The slots this lane holds or will hold."""
        return self.open + self.dialing + self.claims

    @property
    def incoming(self) -> int:
        """The waiters that connections on their way will serve."""
        return (self.dialing + self.claims) * self.capacity


class Entry:
    """A connection, as the ledger sees it. ``connection`` is the pool's; the ledger never looks inside."""

    __slots__ = (
        "alarm",
        "capacity",
        "closing",
        "connection",
        "expires_at",
        "generation",
        "gone",
        "hint",
        "lane",
        "opened_at",
        "retire_at",
        "retired",
        "streams",
        "successor",
        "used",
    )

    def __init__(self, connection: Any, lane: Lane, capacity: int, now: float, generation: int) -> None:
        self.connection = connection
        self.lane = lane
        self.capacity = capacity
        self.streams = 0
        self.opened_at = now
        self.generation = generation
        self.expires_at = now
        self.retire_at: float | None = None  # when it has reached its lifetime
        self.retired: str | None = None  # why it takes no new streams
        self.hint: float | None = None  # seconds the server said it keeps an idle connection
        self.alarm: float | None = None
        self.used = False
        self.closing = False
        self.gone = False
        self.successor: Lane | None = None


class Waiter:
    """A caller in want of a connection. ``entry`` is set when it is served, ``error`` when it is refused.

    ``future`` and ``connect_timeout`` are the pool's.
    """

    __slots__ = ("connect_timeout", "entry", "error", "future", "lane", "number", "returning", "reused")

    def __init__(self, lane: Lane, connect_timeout: float | None = None) -> None:
        self.lane = lane
        self.connect_timeout = connect_timeout
        self.entry: Entry | None = None
        self.error: Any = None
        self.reused = False  # the connection had served before
        self.future: Any = None
        self.number = 0  # in order of arrival
        self.returning = False  # the connection it was given had died: it keeps its place in the queue


class Serve(NamedTuple):
    """Hand the waiter the connection of ``waiter.entry``."""

    waiter: Waiter


class Dial(NamedTuple):
    """Open a connection for the lane; ``connect_timeout`` in seconds is that of the caller it is for."""

    lane: Lane
    connect_timeout: float | None


class Close(NamedTuple):
    """Close the connection. Its slot is free once the ledger hears that it died."""

    entry: Entry
    reason: str


class Fail(NamedTuple):
    """Fail the waiter: ``error`` is ``"full"``, ``"closed"`` or the exception of the dial that failed."""

    waiter: Waiter
    error: Any


Order = Serve | Dial | Close | Fail
