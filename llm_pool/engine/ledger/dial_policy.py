"""Decides which lane can dial, and when: as many connections as are needed, a fair share for each lane."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf

from ..config import Origin
from .backoff import Backoff
from .connections import Connections
from .state import BELOW_MINIMUM, NO_CONNECTION, TOO_FEW_CONNECTIONS, Bound, Dial, Entry, Lane, Order

__all__ = ["DialPolicy"]

EXCESS_LINGER = 2.0  # seconds; a burst that follows finds the connections of the one before
EARLY_LOSS = 1.0  # seconds; a server that closes an idle connection usually does so later


class DialPolicy:
    """The lanes with their shortages, and the dial queues in which lanes wait for a slot.

    ``dialing``        dials in progress, of all lanes
    ``shortage``       the sum of all lanes' shortages
    ``below_minimum``  the lanes that wait for a slot of the pool to prewarm

    Argument: ``expected_capacity`` returns how many streams a connection to an origin is expected to carry.
    """

    def __init__(self, connections: Connections, expected_capacity: Callable[[Origin], int]) -> None:
        self.dialing = 0
        self.shortage = 0
        self._connections = connections
        self._pool_bound = connections.pool_bound
        self.below_minimum = self._pool_bound.dial_queues[BELOW_MINIMUM]
        self._linger = EXCESS_LINGER if connections.limits.max_keepalive_connections else 0.0
        self._expected_capacity = expected_capacity
        per_host = connections.limits.max_connections_per_host
        self._per_origin = inf if per_host is None else per_host
        self._lanes: dict[tuple[Origin, Hashable], Lane] = {}
        self._origin_bounds: dict[Origin, Bound] = {}

    def lane(self, origin: Origin, host_loop: Hashable) -> Lane:
        """Return the lane of an origin on a host loop. Make it if there is none."""
        lane = self._lanes.get((origin, host_loop))
        if lane is None:
            origin_bound = self._origin_bounds.get(origin)
            if origin_bound is None:
                origin_bound = self._origin_bounds[origin] = Bound(self._per_origin)
            capacity = max(1, self._expected_capacity(origin))
            lane = Lane(origin, host_loop, origin_bound, self._pool_bound, capacity)
            self._lanes[origin, host_loop] = lane
            for bound in lane.bounds:
                bound.lanes[lane] = None
        return lane

    def lanes(self) -> list[Lane]:
        """Return all lanes, except those that ``update`` has removed."""
        return list(self._lanes.values())

    def close_excess_idle(self, now: float, orders: list[Order]) -> None:
        """Close the longest idle connections while more than ``max_keepalive_connections`` are idle.

        Each closes ``EXCESS_LINGER`` seconds after its last use, at once if that limit is 0. Called when a
        connection can have become idle, and when the timer of the pool's bound expires.
        """
        idle = self._pool_bound.idle
        while len(idle) > self._connections.limits.max_keepalive_connections:
            entry = next(iter(idle))
            close_at = entry.last_used_at + self._linger
            if now < close_at:
                self._connections.timers.set(close_at, self._pool_bound)
                return
            self._connections.close(entry, "excess", orders)
            self.update(entry.lane, now)

    def update(self, lane: Lane, now: float) -> None:
        """Update the shortage of a lane, and its place in a dial queue. Remove the lane if it is unused.

        A lane with a backoff is not removed before ``Backoff.forget_at``.

        If the bound of the lane's origin has a free slot or an idle connection again, move the lanes that
        wait for this bound to the dial queues of the pool's bound.
        """
        shortage = max(0, len(lane.queue) - lane.streams_coming) if lane.queue else 0
        self.shortage += shortage - lane.shortage
        lane.shortage = shortage
        priority = self._priority(lane, now)
        if priority is None:
            lane.leave_dial_queue()
            self._forget_if_unused(lane, now)
        elif lane.dial_queue is None or priority != lane.priority:
            lane.enter_dial_queue(self._pool_bound, priority)
        origin_bound = lane.origin_bound
        if origin_bound.next_to_dial() is not None and (origin_bound.idle or not origin_bound.full):
            self._move_to_pool_queues(origin_bound)

    def give_slots(self, now: float, orders: list[Order]) -> None:
        """Let lanes dial, in the order of the dial queues, while a slot is free or eviction can free one.

        For a lane without a shortage no connection is evicted, and it dials only if ``_may_prewarm``.
        """
        while (lane := self._pool_bound.next_to_dial()) is not None:
            bound = lane.origin_bound if lane.origin_bound.full else self._pool_bound
            if not bound.full and (lane.shortage or self._may_prewarm):
                self._dial(lane, now, orders)
            elif lane.shortage and bound.full and (entry := _idle_to_evict(bound, lane)):
                self.evict(entry, lane, now, orders)
            elif bound is lane.origin_bound:
                lane.enter_dial_queue(bound, lane.priority)  # then the lanes of other origins do not wait
            else:
                break

    def dial_ended(self, lane: Lane) -> None:
        """Count a dial of ``lane`` as ended. The new connection holds the slot of the dial."""
        self.dialing -= 1
        lane.dialing -= 1

    def free_dial_slot(self, lane: Lane) -> None:
        """Count a dial of ``lane`` as ended, without a connection. Free the slot of the dial."""
        self.dial_ended(lane)
        for bound in lane.bounds:
            bound.held -= 1

    def note_loss(self, entry: Entry, now: float, jitter: float) -> None:
        """Begin a pause in prewarming if a connection was lost soon after its dial, and before any use.

        A server that accepts connections and closes them at once would otherwise be dialed without end.
        ``jitter``: 0.0 to 1.0.
        """
        lane = entry.lane
        if entry.last_used_at > entry.opened_at or now >= entry.opened_at + EARLY_LOSS:
            lane.prewarm_backoff = None
            return
        lane.prewarm_backoff = lane.prewarm_backoff or Backoff()
        lane.prewarm_backoff.dial_failed(now, has_waiters=False, jitter=jitter)

    # Fairness

    def starved_lane(self, lane: Lane, number: int) -> Lane | None:
        """Return the starved lane for which a connection of ``lane`` should be evicted, or None.

        Called when a waiter of ``lane`` could get that connection; ``number`` is the number of that waiter.
        The first waiter of the starved lane must have arrived earlier. Otherwise two busy lanes would take
        each other's connections for ever. A starved lane lacks connections under a full bound: it has none,
        or less than its share while ``lane`` has more than its share.
        """
        if not self.shortage:
            return None  # no lane is starved
        for bound in lane.bounds:
            starved = _next_starved(bound, lane) if bound.full else None
            if starved is not None and starved.queue.first().number < number:
                return starved
        return None

    def evict(self, entry: Entry, lane: Lane, now: float, orders: list[Order]) -> None:
        """Close a connection so that ``lane`` gets its slot.

        A connection in use is closed after its last stream.
        """
        entry.evicted_for = lane
        entry.evicted_idle = not entry.streams
        if entry.evicted_idle:
            lane.slots_soon += 1
            lane.origin_bound.reserved += lane.origin_bound is not entry.lane.origin_bound
        else:
            lane.slots_later += 1
        self._connections.retire(entry, "evicted", orders)
        lane.leave_dial_queue()
        self.update(lane, now)
        self.update(entry.lane, now)

    def use_freed_slot(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Let the lane ``entry.evicted_for``, if there is one, dial in the slot of the dead connection.

        The lane dials only if it still has a shortage, and no backoff and no full bound prevents the dial.
        """
        lane, entry.evicted_for = entry.evicted_for, None
        if lane is None:
            return
        if entry.evicted_idle:
            lane.slots_soon -= 1
            lane.origin_bound.reserved -= lane.origin_bound is not entry.lane.origin_bound
        else:
            lane.slots_later -= 1
        self.update(lane, now)
        if lane.dial_queue is not None and lane.shortage and not lane.full:
            self._dial(lane, now, orders)

    # Dials

    def _priority(self, lane: Lane, now: float) -> int | None:
        """Return how urgently a lane needs to dial, as an index in ``Bound.dial_queues``.

        Returns None if the lane needs no dial, or must not dial now.
        """
        if self._connections.closed:
            return None
        backoff = lane.backoff
        if backoff is not None and (now < backoff.retry_at or lane.dialing or lane.slots_soon):
            return None  # one dial at a time, until a dial succeeds
        if lane.shortage:
            return TOO_FEW_CONNECTIONS if lane.open_or_coming else NO_CONNECTION
        if not lane.prewarmed or lane.open_or_coming >= self._connections.minimum:
            return None
        pause = lane.prewarm_backoff
        if pause is not None and now < pause.retry_at:
            self._connections.timers.set(pause.retry_at, lane)
            return None
        return BELOW_MINIMUM

    @property
    def _may_prewarm(self) -> bool:
        """Whether the pool can keep one more idle connection, in addition to those that are being dialed.

        If not, a prewarmed connection would make the pool close another idle connection.
        """
        idle = len(self._pool_bound.idle)
        return idle + self.dialing < self._connections.limits.max_keepalive_connections

    def _dial(self, lane: Lane, now: float, orders: list[Order]) -> None:
        self.dialing += 1
        lane.dialing += 1
        for bound in lane.bounds:
            bound.held += 1
        newest = lane.queue.newest()
        orders.append(Dial(lane, newest.connect_timeout if newest else None))
        lane.leave_dial_queue()
        self.update(lane, now)

    def _move_to_pool_queues(self, origin_bound: Bound) -> None:
        """Move the lanes in the dial queues of ``origin_bound`` to those of the pool's bound."""
        for priority, queue in enumerate(origin_bound.dial_queues):
            while queue:
                next(iter(queue)).enter_dial_queue(self._pool_bound, priority)

    def _forget_if_unused(self, lane: Lane, now: float) -> None:
        if lane.open_or_coming or lane.closing or lane.slots_later or lane.queue or lane.prewarmed:
            return
        if lane.backoff is not None and now < lane.backoff.forget_at:
            self._connections.timers.set(lane.backoff.forget_at, lane)
            return
        if self._lanes.get((lane.origin, lane.host_loop)) is not lane:
            return
        del self._lanes[lane.origin, lane.host_loop]
        for bound in lane.bounds:
            del bound.lanes[lane]
        if not lane.origin_bound.lanes:
            del self._origin_bounds[lane.origin]


def _idle_to_evict(bound: Bound, lane: Lane) -> Entry | None:
    """Return the longest idle connection under ``bound`` that can be evicted for ``lane``, or None.

    Connections of ``lane`` are not evicted. If ``lane`` has connections, open or coming, a blocked connection
    (its capacity is 0) is not evicted either while its own lane has waiters: its own lane would replace it at
    once.
    """
    for entry in bound.idle:
        needed = not entry.capacity and entry.lane.queue and lane.open_or_coming
        if entry.lane is not lane and not needed:
            return entry
    return None


def _next_starved(bound: Bound, lane: Lane) -> Lane | None:
    """Return the lane that should get a slot of ``lane`` under a full ``bound``, or None.

    The candidate is the first lane with a shortage in the dial queues of ``bound``. It should get the slot if
    it has no connection, open or coming, or if ``lane`` has more than the share. A candidate that is ``lane``
    itself, or that has or will get enough connections, is moved to the end of its queue and not returned.
    """
    first = next(iter(bound.dial_queues[NO_CONNECTION] or bound.dial_queues[TOO_FEW_CONNECTIONS]), None)
    if first is None:
        return None
    share = max(1, bound.limit // len(bound.lanes))
    has_enough = first.open_or_coming >= share
    will_have_enough = first.shortage <= first.slots_later * first.expected_capacity
    if first is lane or has_enough or will_have_enough:
        first.enter_dial_queue(bound, first.priority)  # so that the next call finds another lane
        return None
    return first if first.open_or_coming == 0 or lane.open_or_coming > share else None
