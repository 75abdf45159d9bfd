"""Who may dial, and when: as many connections as the need, a slot to each origin in its turn."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf

from ..config import Origin
from .connections import Connections
from .state import BARE, COLD, SHORT, Bound, Dial, Entry, Lane, Order

__all__ = ["DialPolicy"]


class DialPolicy:
    """The lanes, what each lacks, and the lines in which they wait for a slot."""

    def __init__(self, connections: Connections, expects: Callable[[Origin], int]) -> None:
        self.dialing = 0
        self.short = 0  # waiters for whom nothing is on its way
        self._connections = connections
        self._pool = connections.bound
        self._expects = expects
        per_host = connections.limits.max_connections_per_host
        self._per_host = inf if per_host is None else per_host
        self._lanes: dict[tuple[Origin, Hashable], Lane] = {}
        self._hosts: dict[Origin, Bound] = {}

    def lane(self, origin: Origin, host_loop: Hashable) -> Lane:
        """The lane of an origin in a home, made on first use."""
        lane = self._lanes.get((origin, host_loop))
        if lane is None:
            host = self._hosts.get(origin)
            if host is None:
                host = self._hosts[origin] = Bound(self._per_host)
            lane = Lane(origin, host_loop, host, self._pool, max(1, self._expects(origin)))
            self._lanes[origin, host_loop] = lane
            for bound in lane.bounds:
                bound.lanes[lane] = None
        return lane

    def lanes(self) -> list[Lane]:
        """All there are now."""
        return list(self._lanes.values())

    def trim(self, now: float, orders: list[Order]) -> None:
        """A connection has become idle: close the longest idle one, if too many are idle now."""
        entry = self._connections.surplus()
        if entry is not None:
            self._connections.close(entry, "excess", orders)
            self.settle(entry.lane, now)

    def settle(self, lane: Lane, now: float) -> None:
        """Bring what the lane lacks up to date, and with it its place in line."""
        shortage = max(0, len(lane.waiting) - lane.incoming) if lane.waiting else 0
        self.short += shortage - lane.shortage
        lane.shortage = shortage
        rank = self._rank(lane, now)
        if rank is None:
            lane.leave()
            self._forget_if_empty(lane, now)
        elif lane.line is None or rank != lane.rank:
            lane.join(self._pool, rank)
        if lane.host.first() is not None and (lane.host.idle or not lane.host.full):
            self._call_back(lane.host)

    def grow(self, now: float, orders: list[Order]) -> None:
        """Give slots to the lanes that lack them, each in its turn."""
        while (lane := self._pool.first()) is not None:
            bound = lane.host if lane.host.full else self._pool
            if not bound.full and (lane.shortage or self._may_idle_more):
                self._dial(lane, now, orders)
            elif lane.shortage and bound.full and (oldest := _idle_elsewhere(bound, lane)):
                self.pass_on(oldest, lane, now, orders)
            elif bound is lane.host:
                lane.join(bound, lane.rank)  # another's turn does not depend on it
            else:
                break

    def dial_over(self, lane: Lane) -> None:
        """A dial has ended; the slot is its connection's, or free."""
        self.dialing -= 1
        lane.dialing -= 1

    # Fairness

    def heir(self, lane: Lane, number: int) -> Lane | None:
        """The lane with a better right to what comes free in ``lane`` than the caller of that number there.

        It is one that has none, or less than its share where ``lane`` has more. Only a caller who came
        earlier has the right, so that two busy lanes do not take connections from each other for ever.
        """
        for bound in lane.bounds:
            heir = _neediest(bound, lane) if bound.full else None
            if heir is not None and heir.waiting.first().number < number:
                return heir
        return None

    def pass_on(self, entry: Entry, heir: Lane, now: float, orders: list[Order]) -> None:
        """Close a connection, now or after its last stream, so that ``heir`` may dial in its place."""
        entry.heir = heir
        entry.claimed = not entry.streams
        if entry.claimed:
            heir.claims += 1
            heir.host.reserved += heir.host is not entry.lane.host
        else:
            heir.promises += 1
        self._connections.retire(entry, "evicted", orders)
        heir.leave()
        self.settle(heir, now)
        self.settle(entry.lane, now)

    def inherit(self, entry: Entry, now: float, orders: list[Order]) -> None:
        """A connection has died: its heir, if still in need, dials in its place."""
        heir, entry.heir = entry.heir, None
        if heir is None:
            return
        if entry.claimed:
            heir.claims -= 1
            heir.host.reserved -= heir.host is not entry.lane.host
        else:
            heir.promises -= 1
        self.settle(heir, now)
        if heir.line is not None and heir.shortage and not heir.full:
            self._dial(heir, now, orders)

    def _rank(self, lane: Lane, now: float) -> int | None:
        """How badly the lane wants to dial; None where it does not, or may not now."""
        if self._connections.closed:
            return None
        backoff = lane.backoff
        if backoff is not None and (now < backoff.retry_at or lane.dialing or lane.claims):
            return None  # one dial at a time until one succeeds
        if lane.shortage:
            return SHORT if lane.standing else BARE
        return COLD if lane.prewarmed and lane.standing < self._connections.minimum else None

    @property
    def _may_idle_more(self) -> bool:
        """What is dialed for nobody must not drive out another that idles."""
        return len(self._pool.idle) + self.dialing < self._connections.limits.max_keepalive_connections

    def _dial(self, lane: Lane, now: float, orders: list[Order]) -> None:
        self.dialing += 1
        lane.dialing += 1
        for bound in lane.bounds:
            bound.held += 1
        newest = lane.waiting.newest()
        orders.append(Dial(lane, newest.connect_timeout if newest else None))
        lane.leave()
        self.settle(lane, now)

    def _call_back(self, host: Bound) -> None:
        """Those whom the host's bound had held back stand in the pool's line again."""
        for rank, line in enumerate(host.lines):
            while line:
                next(iter(line)).join(self._pool, rank)

    def _forget_if_empty(self, lane: Lane, now: float) -> None:
        if lane.standing or lane.closing or lane.promises or lane.waiting or lane.prewarmed:
            return
        if lane.backoff is not None and now < lane.backoff.forgotten_at:
            self._connections.timers.set(lane.backoff.forgotten_at, lane)
            return
        if self._lanes.get((lane.origin, lane.host_loop)) is not lane:
            return
        del self._lanes[lane.origin, lane.host_loop]
        for bound in lane.bounds:
            del bound.lanes[lane]
        if not lane.host.lanes:
            del self._hosts[lane.origin]


def _idle_elsewhere(bound: Bound, lane: Lane) -> Entry | None:
    """The longest idle of another lane, which is to dial in its place.

    One that takes no streams of its own lane's waiters would be replaced at once: a lane that has others
    leaves it, and looks on behind it.
    """
    for entry in bound.idle:
        kept = not entry.capacity and entry.lane.waiting and lane.standing
        if entry.lane is not lane and not kept:
            return entry
    return None


def _neediest(bound: Bound, lane: Lane) -> Lane | None:
    """Who is next in line under a bound that is reached, and entitled to a connection of ``lane``."""
    other = next(iter(bound.lines[BARE] or bound.lines[SHORT]), None)
    if other is None:
        return None
    share = max(1, bound.limit // len(bound.lanes))
    if other is lane or other.standing >= share or other.shortage <= other.promises * other.capacity:
        other.join(bound, other.rank)  # to the end: it has what it is due
        return None
    return other if other.standing == 0 or lane.standing > share else None
