"""The rules of the pool: which call gets which connection, and when.

The ledger has no I/O, event loop, clock or lock. Facts are entered by method calls: a call needs a
connection, a dial has succeeded, a connection was released or has died, time has passed. A method returns
orders (serve, dial, close, fail), which the coordinator carries out. A fact costs amortised O(1), whatever
the number of connections; only drain, close and the end of a loop cost O(connections).

A lane is one origin on one host loop, with its queue of waiters and its connections. Each connection holds a
slot of the pool's bound and a slot of its origin's bound. ``connections`` keeps the state of each connection,
``dial_policy`` decides which lane gets a free slot, ``backoff`` decides when a lane dials again after a
failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from ..config import Limits, Origin
from .backoff import Backoff
from .connections import Connections
from .dial_policy import DialPolicy
from .state import Bound, Entry, Fail, Lane, Order, Serve, Waiter

__all__ = ["Ledger"]


class Ledger:
    """The state of one pool, over all its host loops. All times are seconds of one monotonic clock.

    ``connections``  the connections and their state
    ``dial_policy``  the lanes, and which of them can dial
    ``limits``       the pool's limits
    ``timers``       the timers; ``tick`` must be called at ``timers.next_at``
    ``waiting``      waiters in all queues
    ``requests``     calls that have asked for a connection so far
    ``queued``       of these, calls that found all connections in use and no free slot

    Arguments: ``expected_capacity`` returns how many streams the first connection to an origin is expected to
    carry; ``jitter`` returns random numbers from 0.0 to 1.0, for lifetimes and backoffs.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        expected_capacity: Callable[[Origin], int] = lambda _: 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.connections = Connections(limits, jitter)
        self.dial_policy = DialPolicy(self.connections, expected_capacity)
        self.limits = limits
        self.timers = self.connections.timers
        self.waiting = 0
        self.requests = 0
        self.queued = 0
        self._jitter = jitter

    @property
    def closed(self) -> bool:
        """Whether the pool has been closed. Connections can still be closing."""
        return self.connections.closed

    @property
    def total(self) -> int:
        """The number of slots in use: open, dialing and closing connections."""
        return self.connections.pool_bound.held

    @property
    def draining(self) -> int:
        """How many open and closing connections were opened before the last drain."""
        return self.connections.draining

    def entries(self) -> Iterator[Entry]:
        """Return the entries of all open and closing connections, the oldest first."""
        return iter(self.connections.entries)

    def first_waiters(self) -> Iterator[Waiter]:
        """Return the first waiter of each lane that has waiters."""
        return (lane.queue.first() for lane in self.dial_policy.lanes() if lane.queue)

    # Facts about calls

    def arrive(self, waiter: Waiter, now: float) -> list[Order]:
        """Record that a call needs a connection. Set the waiter's ``entry`` or ``error``, or queue it."""
        orders: list[Order] = []
        self._register(waiter, now)
        lane = waiter.lane
        if self.connections.closed:
            self._fail(waiter, "closed", orders)
        elif (entry := self._available_for(waiter, now, orders)) is not None:
            self.connections.assign(entry, waiter)
            return orders
        else:
            lane.queue.add(waiter)
            self.waiting += 1
            if lane.backoff is not None:
                lane.backoff.waiter_arrived()
                self._set_retry_timer(lane, lane.backoff, now)
        self._rebalance(lane, now, orders)
        if lane.shortage and not waiter.returning:
            if self.dial_policy.shortage > self.limits.max_waiting:
                self._dequeue(waiter)
                self._fail(waiter, "full", orders)
                self._rebalance(lane, now, orders)
            elif lane.full:  # otherwise the lane waits for the end of its backoff
                self.queued += 1
        return orders

    def cancel(self, waiter: Waiter, now: float) -> list[Order]:
        """Record that a call was cancelled while it waited, or before it used the connection that it got."""
        orders: list[Order] = []
        entry, waiter.entry = waiter.entry, None
        if entry is not None:
            self.connections.reused -= waiter.reused
            self._end_stream(entry, now, orders)
        elif waiter in waiter.lane.queue:
            self._dequeue(waiter)
            self._rebalance(waiter.lane, now, orders)
        return orders

    # Facts about connections

    def dialed(self, lane: Lane, connection: Any, capacity: int, now: float) -> tuple[Entry, list[Order]]:
        """Record that a dial succeeded. Return the entry of the connection, and the orders.

        ``capacity``: how many streams the connection can carry at a time; 0 if it can carry none for now.
        """
        orders: list[Order] = []
        self.dial_policy.dial_ended(lane)
        entry = self.connections.add(lane, connection, capacity, now)
        lane.expected_capacity = capacity or lane.expected_capacity
        lane.backoff = None
        if self.closed:
            self.connections.close(entry, "closed", orders)
        else:
            self._serve_queue(entry, now, orders)
        self._rebalance(lane, now, orders)
        return entry, orders

    def dial_failed(self, lane: Lane, error: BaseException, now: float) -> list[Order]:
        """Record that a dial failed. If the lane has no open connection, waiters fail with ``error``.

        In this case all waiters of the lane fail if no other dial of the lane is in progress. Otherwise one
        waiter fails at most, and only if the other dials will not serve all waiters.
        """
        orders: list[Order] = []
        self.dial_policy.free_dial_slot(lane)
        if not self.closed:
            self._back_off(lane, now)
        failing = 0
        if not lane.open:
            failing = min(1, len(lane.queue) - lane.streams_coming) if lane.dialing else len(lane.queue)
        for _ in range(failing):
            waiter = lane.queue.first()
            self._dequeue(waiter)
            self._fail(waiter, error, orders)
        self._rebalance(lane, now, orders)
        return orders

    def released(
        self, entry: Entry, now: float, *, reusable: bool = True, hint: float | None = None
    ) -> list[Order]:
        """Record that a stream on a connection ended.

        ``reusable``: whether the connection can carry another. ``hint``: the keep-alive hint, or None.
        """
        orders: list[Order] = []
        entry.is_new = False
        entry.last_used_at = now
        if hint is not None:
            entry.keepalive_hint = hint
        self._end_stream(entry, now, orders, reason=None if reusable else "unclean")
        return orders

    def due(self, entry: Entry, now: float) -> list[Order]:
        """Record that a stream ends in a moment. No dial is started for the waiter that it will serve."""
        orders: list[Order] = []
        if not entry.dead:
            self.connections.expect_release(entry)
            if self.waiting:
                self._rebalance(entry.lane, now, orders)
        return orders

    def resized(self, entry: Entry, capacity: int, now: float) -> list[Order]:
        """Record that a connection can carry ``capacity`` streams at a time from now on; 0: none for now."""
        orders: list[Order] = []
        if entry.dead:
            return orders
        self.connections.change_capacity(entry, capacity)
        entry.lane.expected_capacity = capacity or entry.lane.expected_capacity
        self._reuse_or_retire(entry, now, orders)
        self._rebalance(entry.lane, now, orders)
        return orders

    def retire(self, entry: Entry, reason: str, now: float) -> list[Order]:
        """Accept no new streams on a connection. Close it after its last stream; now if it carries none."""
        orders: list[Order] = []
        if not entry.dead:
            if reason == "lost":
                self.dial_policy.note_loss(entry, now, self._jitter())
            self._reuse_or_retire(entry, now, orders, reason=reason)
            self._rebalance(entry.lane, now, orders)
        return orders

    def died(self, entry: Entry, now: float, reason: str = "lost") -> list[Order]:
        """Record that a connection has closed or was lost, and free its slot.

        ``reason``: why it was lost; ignored if the connection was retired before.
        """
        orders: list[Order] = []
        if entry.dead:
            return orders
        self.connections.remove(entry, reason)
        self.dial_policy.use_freed_slot(entry, now, orders)
        self._rebalance(entry.lane, now, orders)
        return orders

    def loop_ends(self, host_loop: Hashable) -> None:
        """Accept no new streams on the connections of a loop that is about to end. The caller aborts them."""
        for entry in self.entries():
            if entry.lane.host_loop == host_loop:
                self.connections.mark_retired(entry, "shutdown")

    def lost_loop(self, host_loop: Hashable, error: BaseException, now: float) -> list[Order]:
        """Record that a loop has ended: fail its waiters with ``error``, remove its dials and connections."""
        orders: list[Order] = []
        lanes = [lane for lane in self.dial_policy.lanes() if lane.host_loop == host_loop]
        lost = [entry for entry in self.entries() if entry.lane.host_loop == host_loop]
        for lane in lanes:
            self._stop_lane(lane, error, orders)
            self.dial_policy.update(lane, now)  # so that it gets none of the slots freed below
            while lane.dialing:
                self.dial_policy.free_dial_slot(lane)
        for entry in lost:
            self.connections.remove(entry, "shutdown")
        for entry in lost:  # after all were removed, so that none of them is chosen for eviction
            self.dial_policy.use_freed_slot(entry, now, orders)
        for lane in lanes:
            self._rebalance(lane, now, orders)
        return orders

    # Facts about time, and what the pool is to do

    def tick(self, now: float) -> list[Order]:
        """Check the connections, lanes and bounds whose timers have expired. Called at ``timers.next_at``.

        Closes idle connections (``check_idle`` and ``close_excess_idle``), ends backoffs, and removes
        unused lanes.
        """
        orders: list[Order] = []
        for subject in self.timers.pop_due(now):
            match subject:
                case Entry():
                    self.connections.check_idle(subject, now, orders)
                    self._rebalance(subject.lane, now, orders)
                case Lane():
                    self._rebalance(subject, now, orders)
                    if subject.backoff is not None:
                        self._set_retry_timer(subject, subject.backoff, now)
                case Bound():
                    self.dial_policy.close_excess_idle(now, orders)
                    self.dial_policy.give_slots(now, orders)
        return orders

    def prewarm(self, lane: Lane, now: float) -> list[Order]:
        """Keep ``Connections.minimum`` connections open in a lane from now on."""
        orders: list[Order] = []
        lane.prewarmed = not self.closed
        self._rebalance(lane, now, orders)
        return orders

    def drain(self, now: float) -> list[Order]:
        """Retire every connection: idle ones close now, the others when their last stream ends."""
        orders: list[Order] = []
        for entry in self.connections.begin_drain():
            self.connections.retire(entry, "drained", orders)
        for lane in self.dial_policy.lanes():
            self._rebalance(lane, now, orders)
        return orders

    def close(self, now: float) -> list[Order]:
        """Fail every waiter, close every connection, and start no more dials."""
        orders: list[Order] = []
        self.connections.closed = True
        self.timers.clear()
        for lane in self.dial_policy.lanes():
            self._stop_lane(lane, "closed", orders)
            self._rebalance(lane, now, orders)
        for entry in self.entries():
            self.connections.close(entry, "closed", orders)
        return orders

    # Waiters

    def _register(self, waiter: Waiter, now: float) -> None:
        if waiter.returning:  # its lane can have been removed
            waiter.lane = self.dial_policy.lane(waiter.lane.origin, waiter.lane.host_loop)
            self.connections.reused -= waiter.reused
            waiter.reused = False
        else:
            self.requests += 1
            waiter.number = self.requests
            waiter.arrived_at = now

    def _available_for(self, waiter: Waiter, now: float, orders: list[Order]) -> Entry | None:
        """Return an available connection of the waiter's lane, or None.

        If a starved lane should get the connection's slot, evict the connection and look for another one.
        """
        lane = waiter.lane
        while (entry := self.connections.newest_available(lane, now, orders)) is not None:
            starved = self.dial_policy.starved_lane(lane, waiter.number)
            if starved is None:
                return entry
            self.dial_policy.evict(entry, starved, now, orders)
        return None

    def _dequeue(self, waiter: Waiter) -> None:
        waiter.lane.queue.remove(waiter)
        self.waiting -= 1

    def _fail(self, waiter: Waiter, error: Any, orders: list[Order]) -> None:
        waiter.error = error
        orders.append(Fail(waiter, error))

    def _stop_lane(self, lane: Lane, error: Any, orders: list[Order]) -> None:
        """Fail the waiters of a lane with ``error``, and end its prewarming and its backoff."""
        lane.prewarmed = False
        lane.backoff = None
        for waiter in list(lane.queue):
            self._dequeue(waiter)
            self._fail(waiter, error, orders)

    # Connections

    def _end_stream(self, entry: Entry, now: float, orders: list[Order], reason: str | None = None) -> None:
        if not entry.dead:
            self.connections.end_stream(entry)
            self._reuse_or_retire(entry, now, orders, reason)
            if orders or self.waiting or self.dial_policy.below_minimum:  # otherwise no lane needs a dial
                self._rebalance(entry.lane, now, orders)

    def _reuse_or_retire(
        self, entry: Entry, now: float, orders: list[Order], reason: str | None = None
    ) -> None:
        """Retire a connection for ``reason``, or for the reason that ``reason_to_retire`` returns.

        If both are None, let the connection serve waiters, or keep it available.
        """
        reason = reason or self.connections.reason_to_retire(entry, now)
        if reason is None:
            self._serve_queue(entry, now, orders)
        else:
            self.connections.retire(entry, reason, orders)

    def _serve_queue(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Let a connection serve waiters of its lane up to its capacity. Then make the connection available.

        If a starved lane should get the connection's slot, evict the connection instead. A new connection is
        not evicted. Otherwise two lanes could evict each other's connections for ever, and use none of them.
        """
        queue = entry.lane.queue
        while self.waiting and queue and entry.streams < entry.capacity:
            waiter = queue.first()
            starved = None if entry.is_new else self.dial_policy.starved_lane(entry.lane, waiter.number)
            if starved is not None:
                self.dial_policy.evict(entry, starved, now, orders)
                return
            self._dequeue(waiter)
            self.connections.assign(entry, waiter)
            orders.append(Serve(waiter))
        self.connections.make_available(entry)
        self.dial_policy.close_excess_idle(now, orders)

    # Dials

    def _rebalance(self, lane: Lane, now: float, orders: list[Order]) -> None:
        """Update a lane's shortage, then give free slots to lanes that must dial.

        Called after each fact that can change what a lane needs.
        """
        self.dial_policy.update(lane, now)
        self.dial_policy.give_slots(now, orders)

    def _back_off(self, lane: Lane, now: float) -> None:
        lane.backoff = lane.backoff or Backoff()
        lane.backoff.dial_failed(now, has_waiters=bool(lane.queue), jitter=self._jitter())
        self._set_retry_timer(lane, lane.backoff, now)

    def _set_retry_timer(self, lane: Lane, backoff: Backoff, now: float) -> None:
        """Set the lane's timer to the end of its pause. After the pause, reset an unused lane's backoff."""
        if now < backoff.retry_at:
            self.timers.set(backoff.retry_at, lane)
        elif not (lane.queue or lane.dialing):
            backoff.reset()
