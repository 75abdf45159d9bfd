"""The connections of a pool: which may serve, which idle, which have to end, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from ..config import Limits
from .state import Bound, Close, Entry, Lane, Order, Waiter
from .timers import Timers

__all__ = ["Connections"]

LIFETIME_JITTER = 0.1  # connections opened together must not all retire together
HINT_MARGIN = 1.0  # seconds; the server's clock started when it sent, ours when we had read


class Connections:
    """Keeps every connection in its place: available or not, idle or in use, open or closing."""

    def __init__(self, limits: Limits, jitter: Callable[[], float]) -> None:
        self.limits = limits
        self.minimum = min(limits.min_connections, limits.max_keepalive_connections)
        if limits.keepalive_expiry == 0:
            self.minimum = 0  # a prewarmed connection would expire at once
        self.bound = Bound(limits.max_connections)
        self.timers = Timers()
        self.closed = False
        self.entries: dict[Entry, None] = {}  # open and closing
        self.in_use = 0
        self.streams = 0  # that all connections carry
        self.outgoing = 0  # connections from before the last drain
        self.opened = 0
        self.reused = 0
        self.closed_by_reason: Counter[str] = Counter()
        self._jitter = jitter
        self._generation = 0

    # Coming and going

    def add(self, lane: Lane, connection: Any, capacity: int, now: float) -> Entry:
        """A new connection, in no place yet. Its slot is the dial's."""
        entry = Entry(connection, lane, capacity, now, self._generation)
        if self.limits.max_lifetime is not None:
            entry.retire_at = now + self.limits.max_lifetime * (1 - LIFETIME_JITTER * self._jitter())
        self.entries[entry] = None
        self.opened += 1
        lane.open += 1
        if not capacity:
            lane.shut += 1
        return entry

    def disqualify(self, entry: Entry, reason: str) -> None:
        """It takes no new streams, and closes for that reason. Of several the first counts."""
        if entry.retired is None:
            entry.retired = reason
            entry.lane.available.pop(entry, None)
            entry.lane.shut -= not entry.capacity
            self._no_longer_due(entry)

    def retire(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        """It takes no new streams, and closes when it carries none."""
        self.disqualify(entry, reason)
        if not entry.streams:
            self.close(entry, reason, orders)

    def close(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        """It closes, whatever it carries."""
        if entry.closing:
            return
        self.disqualify(entry, reason)
        entry.closing = True
        self._wake(entry)
        entry.lane.open -= 1
        entry.lane.closing += 1
        assert entry.retired is not None
        self.closed_by_reason[entry.retired] += 1
        orders.append(Close(entry, entry.retired))

    def remove(self, entry: Entry, reason: str) -> None:
        """It is gone, and its slot is free."""
        entry.gone = True
        del self.entries[entry]
        self.disqualify(entry, reason)
        lane = entry.lane
        if entry.closing:
            lane.closing -= 1
        else:
            self._wake(entry)
            lane.open -= 1
            assert entry.retired is not None
            self.closed_by_reason[entry.retired] += 1
        for bound in lane.bounds:
            bound.held -= 1
        if entry.streams:
            self.in_use -= 1
            self.streams -= entry.streams
        if entry.generation < self._generation:
            self.outgoing -= 1
        entry.connection = None  # an alarm may keep the entry a while

    def start_over(self) -> list[Entry]:
        """Connections of today are outgoing. Those among them that are open."""
        self._generation += 1
        self.outgoing = len(self.entries)
        return [entry for entry in self.entries if not entry.closing]

    # Use

    def assign(self, entry: Entry, waiter: Waiter) -> None:
        """A stream on the connection is the waiter's."""
        waiter.entry = entry
        waiter.reused = entry.used or entry.streams > 0
        self.reused += waiter.reused
        if not entry.streams:
            self.in_use += 1
            self._wake(entry)
        entry.streams += 1
        self.streams += 1
        if entry.streams >= entry.capacity:
            entry.lane.available.pop(entry, None)

    def take_back(self, entry: Entry) -> None:
        """A stream has ended."""
        entry.streams -= 1
        self.streams -= 1
        if not entry.streams:
            self.in_use -= 1
        self._no_longer_due(entry)

    def expect(self, entry: Entry) -> None:
        """A stream is about to end, and its connection for others then."""
        if entry.retired is None and not entry.due:
            entry.due = True
            entry.lane.due += 1

    def change_capacity(self, entry: Entry, capacity: int) -> None:
        """It carries more streams from now on, or fewer, or none for now."""
        if entry.retired is None:
            entry.lane.shut += (not capacity) - (not entry.capacity)
        entry.capacity = capacity
        if entry.streams >= capacity:
            entry.lane.available.pop(entry, None)

    def shelve(self, entry: Entry) -> None:
        """What a connection in service has to spare is for those who come."""
        if entry.streams < entry.capacity:
            entry.lane.available[entry] = None
        if not entry.streams:
            self._rest(entry, entry.idle_since)

    def newest_available(self, lane: Lane, now: float, orders: list[Order]) -> Entry | None:
        """Last in, first out: those used least come to the end of their time."""
        while lane.available:
            entry = next(reversed(lane.available))
            reason = self.unfit(entry, now) or self._expired(entry, now)
            if reason is None:
                return entry
            self.retire(entry, reason, orders)
        return None

    # Ends

    def unfit(self, entry: Entry, now: float) -> str | None:
        """Why a connection may take no more streams, if so."""
        if entry.retired is not None:
            return entry.retired
        if now >= entry.retire_at:
            return "lifetime"
        return None

    def look_at(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Its alarm has rung."""
        if entry not in self.bound.idle:
            return
        reason = self.unfit(entry, now) or self._expired(entry, now)
        if reason is not None:
            self.close(entry, reason, orders)
            return
        kept = entry.expires_at <= now  # for the minimum, for another while
        self._rest(entry, now if kept else entry.idle_since)

    def surplus(self) -> Entry | None:
        """The connection that has idled longest, if more idle than ``max_keepalive_connections``."""
        idle = self.bound.idle
        return next(iter(idle)) if len(idle) > self.limits.max_keepalive_connections else None

    def _expired(self, entry: Entry, now: float) -> str | None:
        if entry.streams or now < entry.expires_at:
            return None
        lane = entry.lane
        if lane.prewarmed and lane.open <= self.minimum and entry.hint is None:
            return None
        return "expired"

    # Places

    def _no_longer_due(self, entry: Entry) -> None:
        entry.lane.due -= entry.due
        entry.due = False

    def _rest(self, entry: Entry, since: float) -> None:
        entry.used = True
        for bound in entry.lane.bounds:
            bound.idle[entry] = None
        longest = inf if self.limits.keepalive_expiry is None else self.limits.keepalive_expiry
        if entry.hint is not None:
            longest = min(longest, entry.hint - min(HINT_MARGIN, entry.hint / 2))
        entry.expires_at = since + longest
        when = min(entry.expires_at, entry.retire_at)
        if when < inf:
            self.timers.set(when, entry)

    def _wake(self, entry: Entry) -> None:
        for bound in entry.lane.bounds:
            bound.idle.pop(entry, None)
