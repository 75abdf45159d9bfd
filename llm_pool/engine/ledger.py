"""The rules: who gets which connection, and when. Pure: no I/O, no event loop, no clock, no lock.

Facts go in (a caller arrived, a dial succeeded, a connection came back or died, time is now t), orders
come out (serve, dial, close, fail). Every fact costs O(1), amortised, however many connections there are.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from math import inf
from typing import Any

from .books import Close, Dial, Entry, Fail, Host, Lane, Order, Serve, Waiter
from .config import Limits, Origin

__all__ = ["Ledger"]

BACKOFF_FIRST = 0.1
BACKOFF_WAITED_FOR = 2.0  # the longest pause between dials while somebody waits
BACKOFF_UNATTENDED = 30.0  # and while nobody does (prewarm)
LIFETIME_JITTER = 0.1  # connections opened together must not all retire together
HINT_MARGIN = 1.0  # seconds; the server's clock started when it sent, ours when we had read


class Ledger:
    """The books of one pool, over all its homes. Times are seconds on any one monotonic clock."""

    def __init__(
        self,
        limits: Limits,
        *,
        expects: Callable[[Origin], int] = lambda origin: 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits
        self.closed = False
        self.total = 0  # slots taken: open, dialing and closing connections
        self.dialing = 0
        self.in_use = 0
        self.closing = 0
        self.waiting = 0
        self.outgoing = 0  # connections from before the last drain
        self.requests = 0
        self.reused = 0
        self.opened = 0
        self.closed_by_reason: Counter[str] = Counter()
        self.last_failure: BaseException | None = None
        self.idle: dict[Entry, None] = {}  # over all lanes, longest idle first
        self._expects = expects
        self._jitter = jitter
        self._generation = 0
        self._short = 0  # waiters for whom nothing is on its way, over all lanes
        self._entries: dict[Entry, None] = {}
        self._lanes: dict[tuple[Origin, Hashable], Lane] = {}
        self._hosts: dict[Origin, Host] = {}
        self._hungry: OrderedDict[Lane, None] = (
            OrderedDict()
        )  # lanes that would dial if they might, each in its turn
        self._numbers = count(1)
        self.next_alarm: float | None = None  # when ``tick`` is next to be called
        self._alarms: list[tuple[float, int, Entry | Lane]] = []

    def lane(self, origin: Origin, home: Hashable) -> Lane:
        """The lane of an origin in a home, made on first use."""
        lane = self._lanes.get((origin, home))
        if lane is None:
            host = self._hosts.setdefault(origin, Host())
            lane = self._lanes[origin, home] = Lane(origin, home, host)
            lane.capacity = self._expects(origin)
            host.lanes[lane] = None
        return lane

    def entries(self) -> Iterator[Entry]:
        """Every connection that is open or closing."""
        return iter(self._entries)

    # Facts about callers

    def arrive(self, waiter: Waiter, now: float) -> list[Order]:
        """A caller wants a connection. Where one is at hand ``waiter.entry`` is set on return."""
        orders = list[Order]()
        if waiter.returning:
            waiter.lane = self.lane(waiter.lane.origin, waiter.lane.home)  # it may have been forgotten
        else:
            self.requests += 1
        lane = waiter.lane
        if self.closed:
            self._fail(waiter, "closed", orders)
            return orders
        entry = self._newest_available(lane, now, orders)
        if entry is not None:
            self._assign(entry, waiter)
            return orders
        self._enqueue(waiter)
        if lane.failures:
            self._wait_no_longer_than(lane, lane.failed_at + BACKOFF_WAITED_FOR)
        self._settle(lane, now)
        self._grow(now, orders)
        if self._short > self.limits.max_waiting and lane.shortage and not waiter.returning:
            self._dequeue(waiter)
            self._settle(lane, now)
            self._fail(waiter, "full", orders)
        return orders

    def left(self, waiter: Waiter, now: float) -> list[Order]:
        """A caller gave up, waiting or just served. A connection it was given goes back unused."""
        if waiter.entry is not None:
            entry, waiter.entry = waiter.entry, None
            return self.released(entry, now)
        orders = list[Order]()
        if waiter in waiter.lane.waiting:
            self._dequeue(waiter)
            self._settle(waiter.lane, now)
        return orders

    # Facts about connections

    def dialed(self, lane: Lane, connection: Any, capacity: int, now: float) -> tuple[Entry, list[Order]]:
        """A dial succeeded; the connection carries ``capacity`` streams at a time."""
        orders = list[Order]()
        entry = Entry(connection, lane, capacity, now, self._generation)
        if self.limits.max_lifetime is not None:
            entry.retire_at = now + self.limits.max_lifetime * (1 - LIFETIME_JITTER * self._jitter())
        self._entries[entry] = None
        self.opened += 1
        self.dialing -= 1
        lane.dialing -= 1
        lane.open += 1
        lane.capacity = capacity
        lane.failures = 0
        self._offer(entry, now, orders)
        self._settle(lane, now)
        self._grow(now, orders)
        return entry, orders

    def dial_failed(self, lane: Lane, error: BaseException, now: float) -> list[Order]:
        """A dial failed. Waiters whom no connection is left to serve fail with its cause."""
        orders = list[Order]()
        self.last_failure = error
        self.dialing -= 1
        lane.dialing -= 1
        if now >= lane.retry_at:
            self._suspend(lane, now)
        if not lane.open:
            doomed = len(lane.waiting) if not lane.dialing else min(1, len(lane.waiting) - lane.incoming)
            for _ in range(doomed):
                waiter = next(iter(lane.waiting))
                self._dequeue(waiter)
                self._fail(waiter, error, orders)
        self._free_slot(lane, now, orders)
        return orders

    def released(
        self, entry: Entry, now: float, *, reusable: bool = True, hint: float | None = None
    ) -> list[Order]:
        """A caller is done with its stream. ``hint``: seconds the server keeps the connection if idle."""
        orders = list[Order]()
        if entry.gone:
            return orders
        entry.streams -= 1
        if not entry.streams:
            self.in_use -= 1
        if hint is not None:
            entry.hint = hint
        reason = "unclean" if not reusable else self._outdated(entry, now)
        if reason is None:
            self._offer(entry, now, orders)
        else:
            self._retire(entry, reason, orders)
        self._settle(entry.lane, now)
        self._grow(now, orders)
        return orders

    def resized(self, entry: Entry, capacity: int, now: float) -> list[Order]:
        """The server changed how many streams the connection may carry."""
        orders = list[Order]()
        entry.capacity = entry.lane.capacity = capacity
        if entry.gone or entry.closing:
            return orders
        if entry.streams >= capacity:
            entry.lane.available.pop(entry, None)
            self.idle.pop(entry, None)
        else:
            self._offer(entry, now, orders)
        self._settle(entry.lane, now)
        self._grow(now, orders)
        return orders

    def retire(self, entry: Entry, reason: str, now: float) -> list[Order]:
        """The connection takes no new streams; it is closed when its last one ends."""
        orders = list[Order]()
        if entry.gone or entry.closing:
            return orders
        self._retire(entry, reason, orders)
        self._settle(entry.lane, now)
        self._grow(now, orders)
        return orders

    def died(self, entry: Entry, now: float, reason: str = "lost") -> list[Order]:
        """The connection is gone, closed by us or by anything else. Its slot is free from now on."""
        orders = list[Order]()
        if entry.gone:
            return orders
        entry.gone = True
        del self._entries[entry]
        lane = entry.lane
        lane.available.pop(entry, None)
        self.idle.pop(entry, None)
        lane.open -= 1
        if entry.streams:
            self.in_use -= 1
        if entry.generation < self._generation:
            self.outgoing -= 1
        if entry.closing:
            self.closing -= 1
        else:
            self.closed_by_reason[reason] += 1
        entry.connection = None  # an alarm may keep the entry a while
        if entry.successor is not None:
            entry.successor.claims -= 1
            self._settle(entry.successor, now, first=True)
        self._free_slot(lane, now, orders)
        return orders

    def lost_home(self, home: Hashable, error: BaseException, now: float) -> list[Order]:
        """An event loop has ended, and with it all that lived on it."""
        orders = list[Order]()
        lanes = [lane for lane in self._lanes.values() if lane.home == home]
        for lane in lanes:
            lane.minimum = 0
            for waiter in list(lane.waiting):
                self._dequeue(waiter)
                self._fail(waiter, error, orders)
        for lane in lanes:
            for _ in range(lane.dialing):
                orders += self.dial_failed(lane, error, now)
        for entry in [entry for entry in self._entries if entry.lane.home == home]:
            orders += self.died(entry, now)
        return orders

    # Facts about time and intent

    def tick(self, now: float) -> list[Order]:
        """Time has passed: idle connections expire, suspended lanes may dial again."""
        orders = list[Order]()
        while self._alarms and self._alarms[0][0] <= now:
            _, _, subject = heapq.heappop(self._alarms)
            if isinstance(subject, Lane):
                self._settle(subject, now)
            else:
                self._expire(subject, now, orders)
        self.next_alarm = self._alarms[0][0] if self._alarms else None
        self._grow(now, orders)
        return orders

    def prewarm(self, lane: Lane, now: float) -> list[Order]:
        """Keep ``min_connections`` open in this lane from now on."""
        orders = list[Order]()
        lane.minimum = self.limits.min_connections
        self._settle(lane, now)
        self._grow(now, orders)
        return orders

    def resize(self, limits: Limits, now: float) -> list[Order]:
        """New limits hold from now on; what is over them goes as it comes back."""
        orders = list[Order]()
        self.limits = limits
        self._trim(now, orders)
        for lane in list(self._lanes.values()):
            lane.minimum = min(lane.minimum, limits.min_connections)
            self._settle(lane, now)
        self._grow(now, orders)
        return orders

    def drain(self, now: float) -> list[Order]:
        """Connections of today serve no new call: the idle close now, the others as they come back."""
        orders = list[Order]()
        self._generation += 1
        self.outgoing = len(self._entries)
        for entry in list(self._entries):
            entry.lane.available.pop(entry, None)
            if not entry.streams:
                self._close(entry, "drained", orders)
        for lane in list(self._lanes.values()):
            self._settle(lane, now)
        self._grow(now, orders)
        return orders

    def close(self, now: float) -> list[Order]:
        """The end: every waiter fails, every connection closes, nothing is dialed any more."""
        orders = list[Order]()
        self.closed = True
        for lane in list(self._lanes.values()):
            lane.minimum = 0
            for waiter in list(lane.waiting):
                self._dequeue(waiter)
                self._fail(waiter, "closed", orders)
            self._settle(lane, now)
        for entry in list(self._entries):
            self._close(entry, "closed", orders)
        return orders

    # Queue

    def _enqueue(self, waiter: Waiter) -> None:
        waiting = waiter.lane.waiting
        waiting[waiter] = None
        if waiter.returning:
            waiting.move_to_end(waiter, last=False)
        else:
            waiter.number = next(self._numbers)
        self.waiting += 1

    def _dequeue(self, waiter: Waiter) -> None:
        del waiter.lane.waiting[waiter]
        self.waiting -= 1

    def _fail(self, waiter: Waiter, error: Any, orders: list[Order]) -> None:
        waiter.error = error
        orders.append(Fail(waiter, error))

    # Connections

    def _newest_available(self, lane: Lane, now: float, orders: list[Order]) -> Entry | None:
        while lane.available:
            entry = next(reversed(lane.available))
            reason = self._outdated(entry, now)
            if reason is None and not entry.streams and entry.expires_at <= now:
                reason = "expired"
            if reason is None:
                return entry
            self._retire(entry, reason, orders)
        return None

    def _outdated(self, entry: Entry, now: float) -> str | None:
        """Why the connection may serve no more, if so."""
        if entry.retired is not None:
            return entry.retired
        if entry.generation < self._generation:
            return "drained"
        if entry.retire_at is not None and now >= entry.retire_at:
            return "lifetime"
        if self._standing > self.limits.max_connections:
            return "excess"
        return None

    def _retire(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        entry.retired = entry.retired or reason
        entry.lane.available.pop(entry, None)
        if not entry.streams:
            self._close(entry, entry.retired, orders)

    def _assign(self, entry: Entry, waiter: Waiter) -> None:
        if not entry.streams:
            self.in_use += 1
            self.idle.pop(entry, None)
        entry.streams += 1
        waiter.reused = entry.used
        if entry.used:
            self.reused += 1
        entry.used = True
        if entry.streams >= entry.capacity:
            entry.lane.available.pop(entry, None)
        waiter.entry = entry

    def _offer(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """Give the spare streams of a connection to those in the queue; what is left over is available."""
        lane = entry.lane
        while (
            lane.waiting and entry.streams < entry.capacity and not (self._owed(lane) and not entry.streams)
        ):
            waiter = next(iter(lane.waiting))
            self._dequeue(waiter)
            self._assign(entry, waiter)
            orders.append(Serve(waiter))
        if self.closed and not entry.streams:
            self._close(entry, "closed", orders)
        elif entry.streams < entry.capacity and not entry.closing:
            lane.available[entry] = None
            if not entry.streams:
                self._rest(entry, now, orders)

    def _owed(self, lane: Lane) -> bool:
        """Whether a connection that comes free here goes to a lane that has less than its share.

        Only a caller who came earlier has that right, so that two busy lanes do not redial for ever.
        """
        if self.total < self.limits.max_connections or not self._hungry:
            return False
        if lane in self._hungry:
            self._hungry.move_to_end(lane)  # what comes free here is this lane's turn
        other = next(iter(self._hungry))
        if other is lane or not other.waiting:
            return False
        share = max(1, self.limits.max_connections // len(self._lanes))
        if other.held >= share or not (lane.held > share or other.held == 0):
            return False
        return next(iter(other.waiting)).number < next(iter(lane.waiting)).number

    def _rest(self, entry: Entry, now: float, orders: list[Order]) -> None:
        entry.expires_at = inf
        if self.limits.keepalive_expiry is not None:
            entry.expires_at = now + self.limits.keepalive_expiry
        if entry.hint is not None:
            entry.expires_at = min(entry.expires_at, now + entry.hint - min(HINT_MARGIN, entry.hint / 2))
        if entry.retire_at is not None:
            entry.expires_at = min(entry.expires_at, entry.retire_at)
        self.idle[entry] = None
        if entry.expires_at < inf and (entry.alarm is None or entry.expires_at < entry.alarm):
            self._set_alarm(entry, entry.expires_at)
        self._trim(now, orders)

    def _trim(self, now: float, orders: list[Order]) -> None:
        limits = self.limits
        while self.idle and (
            len(self.idle) > limits.max_keepalive_connections or self._standing > limits.max_connections
        ):
            self._close(next(iter(self.idle)), "excess", orders)

    @property
    def _standing(self) -> int:
        return self.total - self.closing

    def _expire(self, entry: Entry, now: float, orders: list[Order]) -> None:
        if entry.gone:
            return
        entry.alarm = None
        if entry not in self.idle:
            return
        lane = entry.lane
        reason = self._outdated(entry, now)
        if reason is None and entry.expires_at > now:
            self._set_alarm(entry, entry.expires_at)
        elif reason is None and entry.hint is None and lane.open <= lane.minimum:
            self._rest(entry, now, orders)
        else:
            self._close(entry, reason or "expired", orders)

    def _close(self, entry: Entry, reason: str, orders: list[Order]) -> None:
        if entry.closing:
            return
        entry.closing = True
        self.closing += 1
        entry.lane.available.pop(entry, None)
        self.idle.pop(entry, None)
        self.closed_by_reason[reason] += 1
        orders.append(Close(entry, reason))

    # Growth

    def _settle(self, lane: Lane, now: float, *, first: bool = False) -> None:
        """Bring what the lane lacks up to date, and with it its place among the hungry."""
        shortage = max(0, len(lane.waiting) - lane.incoming)
        self._short += shortage - lane.shortage
        lane.shortage = shortage
        if not self._wants(lane, now):
            self._hungry.pop(lane, None)
            lane.host.blocked.pop(lane, None)
            self._forget_if_empty(lane, now)
        elif lane not in self._hungry and lane not in lane.host.blocked:
            self._hungry[lane] = None
        if first and lane in self._hungry:
            self._hungry.move_to_end(lane, last=False)

    def _wants(self, lane: Lane, now: float) -> bool:
        if self.closed or (lane.failures and now < lane.retry_at):
            return False
        if lane.failures and (lane.dialing or lane.claims):
            return False  # one probe at a time until one succeeds
        return lane.shortage > 0 or lane.held < lane.minimum

    def _grow(self, now: float, orders: list[Order]) -> None:
        """Give free slots to the lanes that lack them, each in its turn."""
        bound = self.limits.max_connections_per_host
        parked = []
        while self._hungry:
            lane, _ = self._hungry.popitem(last=False)
            if bound is not None and lane.host.held >= bound:
                if not self._evict(self._idle_at(lane.host), lane, orders):
                    lane.host.blocked[lane] = None
                    continue
            elif self.total < self.limits.max_connections:
                self._dial(lane, orders)
            elif not lane.shortage:
                parked.append(lane)  # prewarming takes nothing from others
                continue
            elif not self._evict(next(iter(self.idle), None), lane, orders):
                self._hungry[lane] = None
                self._hungry.move_to_end(lane, last=False)
                break
            self._settle(lane, now)
        self._hungry.update(dict.fromkeys(parked))

    def _dial(self, lane: Lane, orders: list[Order]) -> None:
        self.total += 1
        self.dialing += 1
        lane.dialing += 1
        lane.host.held += 1
        newest = next(reversed(lane.waiting), None)
        orders.append(Dial(lane, newest.connect_timeout if newest else None))

    def _evict(self, entry: Entry | None, lane: Lane, orders: list[Order]) -> bool:
        """Close an idle connection so that ``lane`` may dial in its place."""
        if entry is None:
            return False
        entry.successor = lane
        lane.claims += 1
        self._close(entry, "evicted", orders)
        return True

    def _idle_at(self, host: Host) -> Entry | None:
        for lane in host.lanes:
            for entry in lane.available:
                if not entry.streams:
                    return entry
        return None

    def _free_slot(self, lane: Lane, now: float, orders: list[Order]) -> None:
        self.total -= 1
        lane.host.held -= 1
        for blocked in list(lane.host.blocked):
            del lane.host.blocked[blocked]
            self._settle(blocked, now)
        self._settle(lane, now)
        self._grow(now, orders)

    # Trouble

    def _suspend(self, lane: Lane, now: float) -> None:
        lane.failures += 1
        lane.failed_at = now
        longest = BACKOFF_WAITED_FOR if lane.waiting else BACKOFF_UNATTENDED
        pause = min(longest, BACKOFF_FIRST * 2 ** min(lane.failures - 1, 16))
        lane.retry_at = now + pause * (0.75 + 0.5 * self._jitter())
        self._set_alarm(lane, lane.retry_at)

    def _wait_no_longer_than(self, lane: Lane, when: float) -> None:
        if when < lane.retry_at:
            lane.retry_at = when
            self._set_alarm(lane, when)

    def _set_alarm(self, subject: Entry | Lane, when: float) -> None:
        if isinstance(subject, Entry):
            subject.alarm = when
        heapq.heappush(self._alarms, (when, next(self._numbers), subject))
        self.next_alarm = self._alarms[0][0]

    def _forget_if_empty(self, lane: Lane, now: float) -> None:
        if lane.held or lane.waiting or lane.minimum or (lane.failures and now < lane.retry_at):
            return
        if self._lanes.get((lane.origin, lane.home)) is lane:
            del self._lanes[lane.origin, lane.home], lane.host.lanes[lane]
            if not lane.host.lanes:
                del self._hosts[lane.origin]
