"""The state of the ledger (bounds, lanes, entries, waiters), and its orders."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from math import inf
from typing import Any, NamedTuple

from ..config import Origin
from .backoff import Backoff

__all__ = [
    "BELOW_MINIMUM",
    "NO_CONNECTION",
    "TOO_FEW_CONNECTIONS",
    "Bound",
    "Close",
    "Dial",
    "Entry",
    "Fail",
    "Lane",
    "Order",
    "Serve",
    "Waiter",
    "WaiterQueue",
]

# Why a lane needs to dial, the most urgent reason first. Each is an index in ``Bound.dial_queues``.
NO_CONNECTION = 0  # it has waiters, and no connection open or coming
TOO_FEW_CONNECTIONS = 1  # it has connections, and waiters that these cannot serve
BELOW_MINIMUM = 2  # it has no shortage, and fewer connections than its minimum


class Bound:
    """A maximum number of connections. The pool has a bound, and each origin has one for all host loops.

    ``limit``        the maximum; infinity for no limit
    ``held``         slots in use: dialing, open and closing connections
    ``reserved``     slots kept for dials that begin when an evicted connection of another origin has closed
    ``idle``         open connections without streams, the longest idle first
    ``lanes``        the lanes that this bound limits
    ``dial_queues``  the lanes that need to dial: one queue for each priority; a lane is in one queue at most
    ``timer_at``     when its timer expires; None if none is set, as always for the bound of an origin

    Ordered sets are OrderedDicts: in a plain dict, finding the first key takes one step for each key that was
    deleted before it.
    """

    __slots__ = ("dial_queues", "held", "idle", "lanes", "limit", "reserved", "timer_at")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.held = 0
        self.reserved = 0
        self.idle: OrderedDict[Entry, None] = OrderedDict()
        self.lanes: dict[Lane, None] = {}
        self.dial_queues: tuple[OrderedDict[Lane, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self.timer_at: float | None = None

    @property
    def full(self) -> bool:
        """Whether all slots are in use or reserved."""
        return self.held + self.reserved >= self.limit

    def next_to_dial(self) -> Lane | None:
        """Return the first lane of the most urgent queue that has lanes; None if all queues are empty."""
        for queue in self.dial_queues:
            if queue:
                return next(iter(queue))
        return None


class Lane:
    """One origin on one host loop. A waiter is served only by connections of its own lane.

    ``origin``             scheme, host and port
    ``host_loop``          the event loop of its connections
    ``origin_bound``       the bound of its origin (``max_connections_per_host``)
    ``pool_bound``         the bound of the pool (``max_connections``)
    ``bounds``             ``origin_bound`` and ``pool_bound``
    ``expected_capacity``  how many streams its next connection is expected to carry
    ``available``          connections that accept another stream, in the order in which they became available
    ``queue``              the waiters
    ``open``               open connections, in use or idle
    ``blocked``            open connections that are not retired and whose capacity is 0 for now
    ``closing``            connections whose close was ordered and that still hold their slots
    ``dialing``            dials in progress
    ``releases_due``       connections in use with a stream that will be released in a moment
    ``slots_soon``         slots that the lane gets when evicted idle connections have closed
    ``slots_later``        slots that the lane gets when evicted connections in use have ended their streams
    ``shortage``           waiters that will not be served without another dial
    ``prewarmed``          whether to keep ``Connections.minimum`` connections open, even without waiters
    ``backoff``            when to dial again after failed dials; None if no dial has failed since the last
                           success
    ``prewarm_backoff``    when to prewarm again after new connections were lost unused; None if none was
    ``timer_at``           when its timer expires; None if none is set
    ``dial_queue``         the queue of a bound in which it waits for a slot; None if it waits for none
    ``priority``           the index of its last ``dial_queue`` in ``Bound.dial_queues``
    """

    __slots__ = (
        "available",
        "backoff",
        "blocked",
        "bounds",
        "closing",
        "dial_queue",
        "dialing",
        "expected_capacity",
        "host_loop",
        "open",
        "origin",
        "origin_bound",
        "pool_bound",
        "prewarm_backoff",
        "prewarmed",
        "priority",
        "queue",
        "releases_due",
        "shortage",
        "slots_later",
        "slots_soon",
        "timer_at",
    )

    def __init__(
        self,
        origin: Origin,
        host_loop: Hashable,
        origin_bound: Bound,
        pool_bound: Bound,
        expected_capacity: int,
    ) -> None:
        self.origin = origin
        self.host_loop = host_loop
        self.origin_bound = origin_bound
        self.pool_bound = pool_bound
        self.bounds = (origin_bound, pool_bound)
        self.expected_capacity = expected_capacity
        self.available: OrderedDict[Entry, None] = OrderedDict()
        self.queue = WaiterQueue()
        self.open = 0
        self.blocked = 0
        self.closing = 0
        self.dialing = 0
        self.releases_due = 0
        self.slots_soon = 0
        self.slots_later = 0
        self.shortage = 0
        self.prewarmed = False
        self.backoff: Backoff | None = None
        self.prewarm_backoff: Backoff | None = None
        self.timer_at: float | None = None
        self.dial_queue: OrderedDict[Lane, None] | None = None
        self.priority = BELOW_MINIMUM

    @property
    def full(self) -> bool:
        """Whether the origin's bound or the pool's bound is full."""
        return self.origin_bound.full or self.pool_bound.full

    @property
    def open_or_coming(self) -> int:
        """How many connections the lane has or will have soon.

        Counts open connections, dials in progress, and the slots of idle connections evicted for the lane.
        """
        return self.open + self.dialing + self.slots_soon

    @property
    def streams_coming(self) -> int:
        """How many waiters are expected to be served without another dial.

        Counts ``expected_capacity`` streams for each dial in progress, slot in ``slots_soon`` and blocked
        connection, and one stream for each release due.
        """
        return (self.dialing + self.slots_soon + self.blocked) * self.expected_capacity + self.releases_due

    def enter_dial_queue(self, bound: Bound, priority: int) -> None:
        """Move the lane to the end of ``bound.dial_queues[priority]``."""
        self.leave_dial_queue()
        self.priority = priority
        self.dial_queue = bound.dial_queues[priority]
        self.dial_queue[self] = None

    def leave_dial_queue(self) -> None:
        """Remove the lane from its dial queue, if it is in one."""
        if self.dial_queue is not None:
            del self.dial_queue[self]
            self.dial_queue = None


class Entry:
    """The ledger's record of one connection.

    ``connection``      the engine's connection, which the ledger never uses; None once ``dead``
    ``lane``            the lane that it serves
    ``capacity``        how many streams it can carry at a time; 0 if it can carry none for now
    ``streams``         how many streams it carries
    ``opened_at``       when its dial succeeded
    ``last_used_at``    when a stream was last released; at first ``opened_at``
    ``expires_at``      when it will have been idle for too long; infinity for never
    ``retire_at``       when it reaches its lifetime; infinity for never
    ``generation``      how many drains had begun before it was opened
    ``is_new``          whether it has neither released a stream nor been idle
    ``keepalive_hint``  seconds for which the server keeps it open while it is idle; None if not announced
    ``release_due``     whether one of its streams will be released in a moment
    ``retire_reason``   why it accepts no new streams and closes after its last stream; None if it accepts new
                        streams
    ``closing``         whether its close was ordered
    ``dead``            whether it has closed or was lost, and its slot is free
    ``evicted_for``     the lane that gets its slot; None if it was not evicted
    ``evicted_idle``    whether it was idle when it was evicted. Its slot then counts in ``slots_soon`` of
                        ``evicted_for``, otherwise in ``slots_later``
    ``timer_at``        when its timer expires; None if none is set
    """

    __slots__ = (
        "capacity",
        "closing",
        "connection",
        "dead",
        "evicted_for",
        "evicted_idle",
        "expires_at",
        "generation",
        "is_new",
        "keepalive_hint",
        "lane",
        "last_used_at",
        "opened_at",
        "release_due",
        "retire_at",
        "retire_reason",
        "streams",
        "timer_at",
    )

    def __init__(self, connection: Any, lane: Lane, capacity: int, now: float, generation: int) -> None:
        self.connection = connection
        self.lane = lane
        self.capacity = capacity
        self.streams = 0
        self.opened_at = now
        self.last_used_at = now
        self.expires_at = inf
        self.retire_at = inf
        self.generation = generation
        self.is_new = True
        self.keepalive_hint: float | None = None
        self.release_due = False
        self.retire_reason: str | None = None
        self.closing = False
        self.dead = False
        self.evicted_for: Lane | None = None
        self.evicted_idle = False
        self.timer_at: float | None = None


class Waiter:
    """A call's request for a connection.

    ``lane``             the lane in which it waits
    ``connect_timeout``  seconds for a dial that is started for it, inf for no limit; None for the pool's
                         timeout. The ledger only copies it to ``Dial``
    ``future``           the future that the call awaits. Only the engine uses it, not the ledger
    ``number``           its place in the pool's order of arrival
    ``arrived_at``       when it arrived
    ``entry``            the connection that it was given; None before that
    ``error``            why it failed (see ``Fail``); None if it did not
    ``reused``           whether its connection had carried a call, or had been idle, before it was given to
                         this waiter
    ``returning``        whether it waits again, because its connection was unusable or its request is sent
                         again. It keeps its place in the queue
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
        self.future: Any = None
        self.number = 0
        self.arrived_at = 0.0
        self.entry: Entry | None = None
        self.error: Any = None
        self.reused = False
        self.returning = False


class WaiterQueue:
    """The waiters of one lane. First the returning waiters, by number; then the others, by arrival."""

    __slots__ = ("_newcomers", "_returned", "_returned_numbers")

    def __init__(self) -> None:
        self._newcomers: OrderedDict[Waiter, None] = OrderedDict()
        self._returned: dict[int, Waiter] = {}
        self._returned_numbers: list[int] = []  # a heap, still with numbers of waiters that have left

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._returned)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._newcomers or self._returned.get(waiter.number) is waiter

    def __iter__(self) -> Iterator[Waiter]:
        yield from (self._returned[number] for number in sorted(self._returned))
        yield from self._newcomers

    def add(self, waiter: Waiter) -> None:
        """Add a waiter at the end. A returning waiter gets its place, by number, among the returning ones."""
        if waiter.returning:
            self._returned[waiter.number] = waiter
            heapq.heappush(self._returned_numbers, waiter.number)
        else:
            self._newcomers[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter, wherever in the queue it is. Raises KeyError if the waiter is not in the queue."""
        if waiter in self._newcomers:
            del self._newcomers[waiter]
        else:
            del self._returned[waiter.number]

    def first(self) -> Waiter:
        """Return the waiter to serve next. Raises StopIteration if the queue is empty."""
        while self._returned_numbers:
            waiter = self._returned.get(self._returned_numbers[0])
            if waiter is not None:
                return waiter
            heapq.heappop(self._returned_numbers)
        return next(iter(self._newcomers))

    def newest(self) -> Waiter | None:
        """Return the waiter that arrived last, not counting returning waiters.

        Returns any returning waiter if there are no others, and None if the queue is empty.
        """
        return next(reversed(self._newcomers), None) or next(iter(self._returned.values()), None)


class Serve(NamedTuple):
    """Wake a waiter that was given a connection.

    ``waiter``  the waiter; ``waiter.entry`` is its connection
    """

    waiter: Waiter


class Dial(NamedTuple):
    """Open a connection.

    ``lane``             the lane that gets it, with its origin and its host loop
    ``connect_timeout``  seconds for the dial, as the lane's newest waiter has them, inf for no limit; None
                         for the pool's timeout
    """

    lane: Lane
    connect_timeout: float | None


class Close(NamedTuple):
    """Close a connection. Its slot is free only after the fact ``died``.

    ``entry``   the connection
    ``reason``  the reason that ``PoolStats.closed`` counts
    """

    entry: Entry
    reason: str


class Fail(NamedTuple):
    """Fail a waiter.

    ``waiter``  the waiter; ``waiter.error`` is the same error
    ``error``   "full", "closed", or the exception of the dial that failed or of the loop that ended
    """

    waiter: Waiter
    error: Any


Order = Serve | Dial | Close | Fail
