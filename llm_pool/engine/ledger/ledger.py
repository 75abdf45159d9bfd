"""The rules: who gets which connection, and when. Pure: no I/O, no event loop, no clock, no lock.

Facts go in (a caller arrived, a dial succeeded, a connection came back or died, time is now t), orders
come out (serve, dial, close, fail). Every fact costs O(1), amortised, however many connections there are;
only those about all of them (drain, close, a loop that was lost) cost what there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from typing import Any

from ..config import Limits, Origin
from .backoff import Backoff
from .connections import Connections
from .dial_policy import DialPolicy
from .state import Entry, Fail, Lane, Order, Serve, Waiter

__all__ = ["Ledger"]


class Ledger:
    """The books of one pool, over all its homes. Times are seconds on any one monotonic clock.

    ``expects`` tells how many streams the first connection to an origin is expected to carry.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        expects: Callable[[Origin], int] = lambda _: 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.connections = Connections(limits, jitter)
        self.dial_policy = DialPolicy(self.connections, expects)
        self.waiting = 0
        self.requests = 0
        self.queued = 0  # of them, those that found all connections taken, and no room for another
        self._jitter = jitter
        self._numbers = count(1)

    @property
    def limits(self) -> Limits:
        """Those that hold now."""
        return self.connections.limits

    @property
    def closed(self) -> bool:
        """Whether the pool has ended."""
        return self.connections.closed

    @property
    def total(self) -> int:
        """Slots taken: open, dialing and closing connections."""
        return self.connections.bound.held

    @property
    def outgoing(self) -> int:
        """Connections from before the last drain."""
        return self.connections.outgoing

    @property
    def next_alarm(self) -> float | None:
        """When ``tick`` is next to be called."""
        return self.connections.timers.next

    def lane(self, origin: Origin, host_loop: Hashable) -> Lane:
        """The lane of an origin in a home, made on first use."""
        return self.dial_policy.lane(origin, host_loop)

    def entries(self) -> Iterator[Entry]:
        """Every connection that is open or closing."""
        return iter(self.connections.entries)

    def first_in_line(self) -> Iterator[Waiter]:
        """Of each lane that has a queue, who has waited longest."""
        return (lane.waiting.first() for lane in self.dial_policy.lanes() if lane.waiting)

    # Facts about callers

    def arrive(self, waiter: Waiter, now: float) -> list[Order]:
        """A caller wants a connection. Where one is at hand ``waiter.entry`` is set on return."""
        orders = list[Order]()
        self._register(waiter, now)
        lane = waiter.lane
        if self.closed:
            self._fail(waiter, "closed", orders)
        elif (entry := self._at_hand(lane, waiter, now, orders)) is not None:
            self.connections.assign(entry, waiter)
            return orders
        else:
            lane.waiting.add(waiter)
            self.waiting += 1
            if lane.backoff is not None:
                lane.backoff.attend()
                self._wait_out(lane, lane.backoff, now)
        self._balance(lane, now, orders)
        if lane.shortage and not waiter.returning:
            if self.dial_policy.short > self.limits.max_waiting:
                self._dequeue(waiter)
                self._fail(waiter, "full", orders)
                self._balance(lane, now, orders)
            elif lane.full:  # otherwise it waits for an origin that cannot be reached
                self.queued += 1
        return orders

    def cancel(self, waiter: Waiter, now: float) -> list[Order]:
        """A caller gave up, waiting or just served. A connection it was given goes back unused."""
        orders = list[Order]()
        entry, waiter.entry = waiter.entry, None
        if entry is not None:
            self.connections.reused -= waiter.reused
            self._take_back(entry, now, orders)
        elif waiter in waiter.lane.waiting:
            self._dequeue(waiter)
            self._balance(waiter.lane, now, orders)
        return orders

    # Facts about connections

    def dialed(self, lane: Lane, connection: Any, capacity: int, now: float) -> tuple[Entry, list[Order]]:
        """A dial succeeded; the connection carries ``capacity`` streams at a time, 0 for none as yet."""
        orders = list[Order]()
        self.dial_policy.dial_over(lane)
        entry = self.connections.add(lane, connection, capacity, now)
        lane.capacity = capacity or lane.capacity
        lane.backoff = None
        if self.closed:
            self.connections.close(entry, "closed", orders)
        else:
            self._offer(entry, now, orders)
        self._balance(lane, now, orders)
        return entry, orders

    def dial_failed(self, lane: Lane, error: BaseException, now: float) -> list[Order]:
        """A dial failed. Waiters whom no connection is left to serve fail with its cause."""
        orders = list[Order]()
        self._free_dial(lane)
        if not self.closed:
            self._suspend(lane, now)
        doomed = 0
        if not lane.open:
            doomed = min(1, len(lane.waiting) - lane.incoming) if lane.dialing else len(lane.waiting)
        for _ in range(doomed):
            waiter = lane.waiting.first()
            self._dequeue(waiter)
            self._fail(waiter, error, orders)
        self._balance(lane, now, orders)
        return orders

    def released(
        self, entry: Entry, now: float, *, reusable: bool = True, hint: float | None = None
    ) -> list[Order]:
        """A caller is done with its stream. ``hint``: seconds the server keeps the connection if idle."""
        orders = list[Order]()
        entry.used = True
        entry.idle_since = now
        if hint is not None:
            entry.hint = hint
        self._take_back(entry, now, orders, reason=None if reusable else "unclean")
        return orders

    def due(self, entry: Entry, now: float) -> list[Order]:
        """A caller has all it wants, and the rest is read out: nobody dials for want of this connection."""
        orders = list[Order]()
        if not entry.gone:
            self.connections.expect(entry)
            self._balance(entry.lane, now, orders)
        return orders

    def resized(self, entry: Entry, capacity: int, now: float) -> list[Order]:
        """The server changed how many streams the connection may carry; 0 is none for now."""
        orders = list[Order]()
        if entry.gone:
            return orders
        self.connections.change_capacity(entry, capacity)
        entry.lane.capacity = capacity or entry.lane.capacity
        self._put_back(entry, now, orders)
        return orders

    def retire(self, entry: Entry, reason: str, now: float) -> list[Order]:
        """The connection takes no new streams; it is closed when its last one ends."""
        orders = list[Order]()
        if not entry.gone:
            self._put_back(entry, now, orders, reason=reason)
        return orders

    def died(self, entry: Entry, now: float, reason: str = "lost") -> list[Order]:
        """The connection is gone, closed by us or by anything else. Its slot is free from now on."""
        orders = list[Order]()
        if entry.gone:
            return orders
        self.connections.remove(entry, reason)
        self.dial_policy.inherit(entry, now, orders)
        self._balance(entry.lane, now, orders)
        return orders

    def loop_ends(self, host_loop: Hashable) -> None:
        """An event loop is about to end, and cuts what lives on it: nothing there is for anybody any more."""
        for entry in self.entries():
            if entry.lane.host_loop == host_loop:
                self.connections.disqualify(entry, "shutdown")

    def lost_loop(self, host_loop: Hashable, error: BaseException, now: float) -> list[Order]:
        """An event loop has ended, and with it all that lived on it."""
        orders = list[Order]()
        lanes = [lane for lane in self.dial_policy.lanes() if lane.host_loop == host_loop]
        lost = [entry for entry in self.entries() if entry.lane.host_loop == host_loop]
        for lane in lanes:
            self._abandon(lane, error, orders)
            self.dial_policy.settle(lane, now)  # none of them is given a slot that another leaves
            while lane.dialing:
                self._free_dial(lane)
        for entry in lost:
            self.connections.remove(entry, "shutdown")  # all, before anybody looks for one to close
        for entry in lost:
            self.dial_policy.inherit(entry, now, orders)
        for lane in lanes:
            self._balance(lane, now, orders)
        return orders

    # Facts about time and intent

    def tick(self, now: float) -> list[Order]:
        """Time has passed: idle connections expire, suspended lanes may dial again."""
        orders = list[Order]()
        for subject in self.connections.timers.due(now):
            if isinstance(subject, Entry):
                self.connections.look_at(subject, now, orders)
                self._balance(subject.lane, now, orders)
            else:
                self._balance(subject, now, orders)
                if subject.backoff is not None:
                    self._wait_out(subject, subject.backoff, now)
        return orders

    def prewarm(self, lane: Lane, now: float) -> list[Order]:
        """Keep ``min_connections`` open in this lane from now on."""
        orders = list[Order]()
        lane.prewarmed = not self.closed
        self._balance(lane, now, orders)
        return orders

    def drain(self, now: float) -> list[Order]:
        """Connections of today serve no new call: the idle close now, the others as they come back."""
        orders = list[Order]()
        for entry in self.connections.start_over():
            self.connections.retire(entry, "drained", orders)
        for lane in self.dial_policy.lanes():
            self._balance(lane, now, orders)
        return orders

    def close(self, now: float) -> list[Order]:
        """The end: every waiter fails, every connection closes, nothing is dialed any more."""
        orders = list[Order]()
        self.connections.closed = True
        self.connections.timers.clear()
        for lane in self.dial_policy.lanes():
            self._abandon(lane, "closed", orders)
            self._balance(lane, now, orders)
        for entry in self.entries():
            self.connections.close(entry, "closed", orders)
        return orders

    # Callers

    def _register(self, waiter: Waiter, now: float) -> None:
        if waiter.returning:
            waiter.lane = self.lane(waiter.lane.origin, waiter.lane.host_loop)  # it may have been forgotten
            self.connections.reused -= waiter.reused
            waiter.reused = False
        else:
            waiter.number = next(self._numbers)
            waiter.arrived_at = now
            self.requests += 1

    def _at_hand(self, lane: Lane, waiter: Waiter, now: float, orders: list[Order]) -> Entry | None:
        while (entry := self.connections.newest_available(lane, now, orders)) is not None:
            heir = self.dial_policy.heir(lane, waiter.number)
            if heir is None:
                return entry
            self.dial_policy.pass_on(entry, heir, now, orders)
        return None

    def _dequeue(self, waiter: Waiter) -> None:
        waiter.lane.waiting.remove(waiter)
        self.waiting -= 1

    def _fail(self, waiter: Waiter, error: Any, orders: list[Order]) -> None:
        waiter.error = error
        orders.append(Fail(waiter, error))

    def _abandon(self, lane: Lane, error: Any, orders: list[Order]) -> None:
        """Nobody is to be served in this lane any more."""
        lane.prewarmed = False
        lane.backoff = None
        for waiter in list(lane.waiting):
            self._dequeue(waiter)
            self._fail(waiter, error, orders)

    # Connections

    def _take_back(self, entry: Entry, now: float, orders: list[Order], reason: str | None = None) -> None:
        if not entry.gone:
            self.connections.take_back(entry)
            self._put_back(entry, now, orders, reason)

    def _put_back(self, entry: Entry, now: float, orders: list[Order], reason: str | None = None) -> None:
        """A connection is for others, or has to end."""
        reason = reason or self.connections.unfit(entry, now)
        if reason is None:
            self._offer(entry, now, orders)
        else:
            self.connections.retire(entry, reason, orders)
        self._balance(entry.lane, now, orders)

    def _offer(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Its spare streams are for those in the queue; what is left over, for those who come.

        A new one is for those it was dialed for: two lanes must not close each other's unused.
        """
        waiting = entry.lane.waiting
        while waiting and entry.streams < entry.capacity:
            waiter = waiting.first()
            heir = self.dial_policy.heir(entry.lane, waiter.number) if entry.used else None
            if heir is not None:
                self.dial_policy.pass_on(entry, heir, now, orders)
                return
            self._dequeue(waiter)
            self.connections.assign(entry, waiter)
            orders.append(Serve(waiter))
        self.connections.shelve(entry)
        self.dial_policy.trim(now, orders)

    # Dials

    def _balance(self, lane: Lane, now: float, orders: list[Order]) -> None:
        """After every fact: what this lane lacks is known, and slots go where they are lacking."""
        self.dial_policy.settle(lane, now)
        self.dial_policy.grow(now, orders)

    def _free_dial(self, lane: Lane) -> None:
        self.dial_policy.dial_over(lane)
        for bound in lane.bounds:
            bound.held -= 1

    def _suspend(self, lane: Lane, now: float) -> None:
        lane.backoff = lane.backoff or Backoff()
        lane.backoff.grow(now, waited_for=bool(lane.waiting), jitter=self._jitter())
        self._wait_out(lane, lane.backoff, now)

    def _wait_out(self, lane: Lane, backoff: Backoff, now: float) -> None:
        """Have the lane looked at when its pause is over; where it is, and nobody came, it was the last."""
        if now < backoff.retry_at:
            self.connections.timers.set(backoff.retry_at, lane)
        elif not (lane.waiting or lane.dialing):
            backoff.rest()
