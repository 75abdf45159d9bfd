"""The connections of a pool: which are available, idle or in use, and which must close, for what reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from ..config import Limits
from .state import Bound, Close, Entry, Lane, Order, Waiter
from .timers import Timers

__all__ = ["Connections"]

LIFETIME_JITTER = 0.1  # connections that were opened together must not retire together
HINT_MARGIN = 1.0  # seconds; the server counts from sending the response, the pool from receiving it


class Connections:
    """The connections of a pool, with the counts and sets that depend on their states.

    ``limits``            the pool's limits
    ``minimum``           how many connections a prewarmed lane keeps open: ``min_connections``, but at most
                          ``max_keepalive_connections``, and 0 if ``keepalive_expiry`` is 0
    ``pool_bound``        the bound of the pool
    ``timers``            the timers of entries and lanes
    ``closed``            whether the pool has been closed
    ``entries``           the entries of open and closing connections, the oldest first
    ``in_use``            connections that carry streams
    ``streams``           streams on all connections
    ``draining``          connections in ``entries`` that were opened before the last drain
    ``opened``            how many connections have been opened so far
    ``reused``            how many waiters got a connection that had carried a call or been idle
    ``closed_by_reason``  how many connections have been closed or lost so far, by reason

    Argument: ``jitter`` returns random numbers from 0.0 to 1.0, for lifetimes.
    """

    def __init__(self, limits: Limits, jitter: Callable[[], float]) -> None:
        self.limits = limits
        self.minimum = min(limits.min_connections, limits.max_keepalive_connections)
        if limits.keepalive_expiry == 0:
            self.minimum = 0  # a prewarmed connection would expire at once
        self.pool_bound = Bound(limits.max_connections)
        self.timers = Timers()
        self.closed = False
        self.entries: dict[Entry, None] = {}
        self.in_use = 0
        self.streams = 0
        self.draining = 0
        self.opened = 0
        self.reused = 0
        self.closed_by_reason: Counter[str] = Counter()
        self._longest_idle = inf if limits.keepalive_expiry is None else limits.keepalive_expiry
        self._jitter = jitter
        self._generation = 0

    # From open to dead

    def add(self, lane: Lane, connection: Any, capacity: int, now: float) -> Entry:
        """Record a new connection, and return its entry. The connection keeps the slot of its dial.

        ``capacity``: how many streams the connection can carry at a time; 0 if it can carry none for now. The
        connection is neither available nor idle before ``make_available`` is called.
        """
        entry = Entry(connection, lane, capacity, now, self._generation)
        if self.limits.max_lifetime is not None:
            entry.retire_at = now + self.limits.max_lifetime * (1 - LIFETIME_JITTER * self._jitter())
        self.entries[entry] = None
        self.opened += 1
        lane.open += 1
        if not capacity:
            lane.blocked += 1
        return entry

    def mark_retired(self, entry: Entry, reason: str) -> None:
        """Accept no new streams on a connection, but do not close it. A reason recorded before stays."""
        if entry.retire_reason is None:
            entry.retire_reason = reason
            entry.lane.available.pop(entry, None)
            entry.lane.blocked -= not entry.capacity
            if entry.release_due:
                self._clear_release_due(entry)

    def retire(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        """Accept no new streams on a connection. Order its close now if it carries no streams."""
        self.mark_retired(entry, reason)
        if not entry.streams:
            self.close(entry, reason, orders)

    def close(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        """Order the close of a connection, even if it carries streams. Its slot is held until ``remove``."""
        if entry.closing:
            return
        self.mark_retired(entry, reason)
        entry.closing = True
        self._leave_service(entry)
        entry.lane.closing += 1
        assert entry.retire_reason is not None
        orders.append(Close(entry, entry.retire_reason))

    def remove(self, entry: Entry, reason: str) -> None:
        """Remove a connection that has closed or was lost, and free its slot.

        ``reason``: why it was lost; ignored if the connection was retired before.
        """
        entry.dead = True
        del self.entries[entry]
        self.mark_retired(entry, reason)
        if entry.closing:
            entry.lane.closing -= 1
        else:
            self._leave_service(entry)
        for bound in entry.lane.bounds:
            bound.held -= 1
        if entry.streams:
            self.in_use -= 1
            self.streams -= entry.streams
        if entry.generation < self._generation:
            self.draining -= 1
        entry.connection = None  # a timer can still refer to the entry

    def begin_drain(self) -> list[Entry]:
        """Count all present connections as draining. Return the entries of the open ones."""
        self._generation += 1
        self.draining = len(self.entries)
        return [entry for entry in self.entries if not entry.closing]

    # Streams

    def assign(self, entry: Entry, waiter: Waiter) -> None:
        """Begin a stream for ``waiter`` on a connection that can carry another stream."""
        waiter.entry = entry
        waiter.reused = not entry.is_new or entry.streams > 0
        self.reused += waiter.reused
        if not entry.streams:
            self.in_use += 1
            self._unmark_idle(entry)
        entry.streams += 1
        self.streams += 1
        if entry.streams >= entry.capacity:
            entry.lane.available.pop(entry, None)

    def end_stream(self, entry: Entry) -> None:
        """Record that a stream on a connection has ended."""
        entry.streams -= 1
        self.streams -= 1
        if not entry.streams:
            self.in_use -= 1
        if entry.release_due:
            self._clear_release_due(entry)

    def expect_release(self, entry: Entry) -> None:
        """Count a connection in ``Lane.releases_due``: one of its streams will end in a moment.

        Does nothing if the connection is counted already, or if it is retired.
        """
        if entry.retire_reason is None and not entry.release_due:
            entry.release_due = True
            entry.lane.releases_due += 1

    def change_capacity(self, entry: Entry, capacity: int) -> None:
        """Record that a connection can carry ``capacity`` streams at a time from now on; 0: none for now."""
        if entry.retire_reason is None:
            entry.lane.blocked += (not capacity) - (not entry.capacity)
        entry.capacity = capacity
        if entry.streams >= capacity:
            entry.lane.available.pop(entry, None)

    def make_available(self, entry: Entry) -> None:
        """Mark a connection as available if it can carry more streams, and as idle if it carries none."""
        if entry.streams < entry.capacity:
            entry.lane.available[entry] = None
        if not entry.streams:
            self._mark_idle(entry, entry.last_used_at)

    def newest_available(self, lane: Lane, now: float, orders: list[Order]) -> Entry | None:
        """Return the connection of ``lane`` that became available last; None if none is available.

        Connections that have reached their lifetime, or that have expired and are not kept for ``minimum``,
        are retired and not returned. The order is last in, first out, so that the other connections expire
        under low load.
        """
        while lane.available:
            entry = next(reversed(lane.available))
            reason = self._reason_to_close(entry, now)
            if reason is None:
                return entry
            self.retire(entry, reason, orders)
        return None

    # Expiry

    def reason_to_retire(self, entry: Entry, now: float) -> str | None:
        """Return the reason why a connection must not accept new streams; None if it can accept them."""
        if entry.retire_reason is not None:
            return entry.retire_reason
        if now >= entry.retire_at:
            return "lifetime"
        return None

    def check_idle(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Close an idle connection that has expired or reached its lifetime. Otherwise set its next timer.

        Called when the connection's timer expires. Does nothing if the connection is not idle. If a prewarmed
        lane needs an expired connection for ``minimum``, the connection is kept, unless the server has
        announced a keep-alive hint.
        """
        if entry not in self.pool_bound.idle:
            return
        reason = self._reason_to_close(entry, now)
        if reason is not None:
            self.close(entry, reason, orders)
            return
        kept_for_minimum = entry.expires_at <= now
        self._mark_idle(entry, now if kept_for_minimum else entry.last_used_at)

    def _reason_to_close(self, entry: Entry, now: float) -> str | None:
        reason = self.reason_to_retire(entry, now)
        if reason is not None or entry.streams or now < entry.expires_at:
            return reason
        lane = entry.lane
        if lane.prewarmed and lane.open <= self.minimum and entry.keepalive_hint is None:
            return None
        return "expired"

    # Changes of state

    def _leave_service(self, entry: Entry) -> None:
        self._unmark_idle(entry)
        entry.lane.open -= 1
        assert entry.retire_reason is not None
        self.closed_by_reason[entry.retire_reason] += 1

    def _clear_release_due(self, entry: Entry) -> None:
        entry.release_due = False
        entry.lane.releases_due -= 1

    def _mark_idle(self, entry: Entry, since: float) -> None:
        entry.is_new = False
        for bound in entry.lane.bounds:
            bound.idle[entry] = None
        longest = self._longest_idle
        if entry.keepalive_hint is not None:
            longest = min(longest, entry.keepalive_hint - min(HINT_MARGIN, entry.keepalive_hint / 2))
        entry.expires_at = since + longest
        when = min(entry.expires_at, entry.retire_at)
        if when < inf:
            self.timers.set(when, entry)

    def _unmark_idle(self, entry: Entry) -> None:
        for bound in entry.lane.bounds:
            bound.idle.pop(entry, None)
