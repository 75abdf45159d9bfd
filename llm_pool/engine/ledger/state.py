"""What the ledger writes in: bounds, lanes, entries and waiters; and the orders that it gives."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from math import inf
from typing import Any, NamedTuple

from ..config import Origin
from .backoff import Backoff

__all__ = [
    "BARE",
    "COLD",
    "SHORT",
    "Bound",
    "Close",
    "Dial",
    "Entry",
    "Fail",
    "Lane",
    "Order",
    "Serve",
    "Waiter",
]

# How badly a lane wants to dial, worst first: the place of its line in ``Bound.lines``.
BARE = 0  # callers wait, and there is no connection
SHORT = 1  # callers wait, and there are connections, but too few
COLD = 2  # nobody waits: it is below its minimum


class Bound:
    """So many connections and no more: the pool has such a bound, and each origin one over all its homes.

    Where an order counts it is an OrderedDict: to find the first key of a dict costs as many steps as
    keys were deleted before it.
    """

    __slots__ = ("held", "idle", "lanes", "limit", "lines", "reserved")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.held = 0  # slots taken: dialing, open and closing connections
        self.reserved = 0  # slots that come from under other bounds, when connections there have closed
        self.idle: OrderedDict[Entry, None] = OrderedDict()  # longest idle first
        self.lanes: dict[Lane, None] = {}
        self.lines: tuple[OrderedDict[Lane, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())

    @property
    def full(self) -> bool:
        """Whether nobody may dial."""
        return self.held + self.reserved >= self.limit

    def first(self) -> Lane | None:
        """The lane whose turn it is."""
        for line in self.lines:
            if line:
                return next(iter(line))
        return None


class Lane:
    """One origin in one home: only here can a connection meet a waiter.

    ``available`` has spare streams, the newest last. ``dialing`` counts dials on their way, ``claims`` the
    slots that connections being closed will leave here, ``promises`` those that connections in use will;
    ``due`` counts connections in use that come back in a moment.
    """

    __slots__ = (
        "alarm",
        "available",
        "backoff",
        "bounds",
        "capacity",
        "claims",
        "closing",
        "dialing",
        "due",
        "host",
        "host_loop",
        "line",
        "open",
        "origin",
        "pool",
        "prewarmed",
        "promises",
        "rank",
        "shortage",
        "shut",
        "waiting",
    )

    def __init__(self, origin: Origin, host_loop: Hashable, host: Bound, pool: Bound, capacity: int) -> None:
        self.origin = origin
        self.host_loop = host_loop
        self.host = host
        self.pool = pool
        self.bounds = (host, pool)  # all that hold here
        self.capacity = capacity  # streams that the next connection is expected to carry
        self.available: OrderedDict[Entry, None] = OrderedDict()
        self.waiting = Queue()
        self.open = 0
        self.closing = 0
        self.shut = 0  # open connections that take no streams at all for now
        self.dialing = 0
        self.due = 0
        self.claims = 0
        self.promises = 0
        self.prewarmed = False
        self.shortage = 0  # waiters for whom nothing is on its way
        self.backoff: Backoff | None = None
        self.alarm: float | None = None
        self.rank = COLD
        self.line: OrderedDict[Lane, None] | None = None  # where it stands in line

    @property
    def full(self) -> bool:
        """Whether a bound forbids to dial."""
        return self.host.full or self.pool.full

    @property
    def standing(self) -> int:
        """The connections that it has and will have."""
        return self.open + self.dialing + self.claims

    @property
    def incoming(self) -> int:
        """The waiters that connections on their way will serve: new ones, and those that come back."""
        return (self.dialing + self.claims + self.shut) * self.capacity + self.due

    def join(self, bound: Bound, rank: int) -> None:
        """Stand at the end of a line."""
        self.leave()
        self.rank = rank
        self.line = bound.lines[rank]
        self.line[self] = None

    def leave(self) -> None:
        """Stand in no line."""
        if self.line is not None:
            del self.line[self]
            self.line = None


class Entry:
    """A connection, as the ledger sees it. ``connection`` is the pool's; the ledger never looks inside."""

    __slots__ = (
        "alarm",
        "capacity",
        "claimed",
        "closing",
        "connection",
        "due",
        "expires_at",
        "generation",
        "gone",
        "heir",
        "hint",
        "idle_since",
        "lane",
        "opened_at",
        "retire_at",
        "retired",
        "streams",
        "used",
    )

    def __init__(self, connection: Any, lane: Lane, capacity: int, now: float, generation: int) -> None:
        self.connection = connection
        self.lane = lane
        self.capacity = capacity
        self.streams = 0
        self.opened_at = now
        self.idle_since = now  # when it last carried anything
        self.expires_at = inf  # when it has been idle too long
        self.retire_at = inf  # when it has reached its lifetime
        self.generation = generation
        self.retired: str | None = None  # why it takes no new streams
        self.hint: float | None = None  # seconds the server said it keeps an idle connection
        self.alarm: float | None = None
        self.used = False  # it has served, or has been idle
        self.due = False  # its caller has what it wanted, and the last bytes are on their way
        self.closing = False
        self.gone = False
        self.heir: Lane | None = None  # who gets its slot
        self.claimed = False  # and counts on it already


class Waiter:
    """A caller in want of a connection. ``entry`` is set when it is served, ``error`` when it is refused.

    ``future`` and ``connect_timeout`` are the pool's.
    """

    __slots__ = (
        "arrived_at",
        "connect_timeout",
        "entry",
        "error",
        "future",
        "lane",
        "number",
        "returning",
        "reused",
    )

    def __init__(self, lane: Lane, connect_timeout: float | None = None) -> None:
        self.lane = lane
        self.connect_timeout = connect_timeout
        self.entry: Entry | None = None
        self.error: Any = None
        self.reused = False  # the connection was there before the caller
        self.future: Any = None
        self.number = 0  # in order of arrival
        self.arrived_at = 0.0
        self.returning = False  # the connection it was given had died: it keeps its place in the queue


class Queue:
    """Waiters of one lane, first come, first served. Who returns goes before all who were never served."""

    __slots__ = ("_newcomers", "_order", "_returned")

    def __init__(self) -> None:
        self._newcomers: OrderedDict[Waiter, None] = OrderedDict()
        self._returned: dict[int, Waiter] = {}
        self._order: list[int] = []  # a heap of numbers; some have left

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._returned)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._newcomers or self._returned.get(waiter.number) is waiter

    def __iter__(self) -> Iterator[Waiter]:
        yield from (self._returned[number] for number in sorted(self._returned))
        yield from self._newcomers

    def add(self, waiter: Waiter) -> None:
        """At the end; who returns, at the old place."""
        if waiter.returning:
            self._returned[waiter.number] = waiter
            heapq.heappush(self._order, waiter.number)
        else:
            self._newcomers[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """From any place."""
        if waiter in self._newcomers:
            del self._newcomers[waiter]
        else:
            del self._returned[waiter.number]

    def first(self) -> Waiter:
        """Whose turn it is. Raises StopIteration when nobody waits."""
        while self._order:
            waiter = self._returned.get(self._order[0])
            if waiter is not None:
                return waiter
            heapq.heappop(self._order)
        return next(iter(self._newcomers))

    def newest(self) -> Waiter | None:
        """Who came last."""
        return next(reversed(self._newcomers), None) or next(iter(self._returned.values()), None)


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
