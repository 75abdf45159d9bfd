"""A world for the ledger: it carries out the orders, keeps counts of its own, and compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from llm_pool.engine.config import Limits, Origin
from llm_pool.engine.ledger.ledger import Ledger
from llm_pool.engine.ledger.state import Close, Dial, Entry, Fail, Lane, Serve, Waiter

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from llm_pool.engine.ledger.state import Order

__all__ = ["Caller", "Connection", "World", "origin"]


def origin(name: str) -> Origin:
    return Origin("https", name, 443)


@dataclass(eq=False)
class Connection:
    """A connection as the world knows it. ``quiet_since``: when it last carried anything."""

    key: tuple[Origin, Hashable]
    opened_at: float
    quiet_since: float
    entry: Entry = field(init=False)
    state: str = "open"  # then "closing", "dead"
    callers: set[Caller] = field(default_factory=set)
    due: bool = False  # a call on it is about to end
    tainted: bool = False  # it must serve nobody any more
    old: bool = False  # from before the last drain


@dataclass(eq=False)
class Caller:
    """``state``: waiting, then served or failed; once served, done; or left from either."""

    waiter: Waiter
    key: tuple[Origin, Hashable]
    number: int
    state: str = "new"
    connection: Connection | None = None
    error: Any = None


class World:
    """Sockets and callers that exist in these lists only, and a clock that moves when told to."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        self.ledger = Ledger(limits, jitter=lambda: 0.5, **options)
        self.now = 1000.0
        self.callers: list[Caller] = []
        self.connections: list[Connection] = []  # that are not dead
        self.dials: list[Lane] = []
        self.orders: list[Order] = []  # all there were
        self._of_waiter: dict[Waiter, Caller] = {}
        self._arrivals = 0

    # What is

    def waiting(self, key: tuple[Origin, Hashable] | None = None) -> list[Caller]:
        """In order of arrival."""
        queue = [c for c in self.callers if c.state == "waiting" and key in {None, c.key}]
        return sorted(queue, key=lambda caller: caller.number)

    def idle(self, **where: Any) -> list[Connection]:
        """The connections at ``host=...`` or everywhere."""
        return [c for c in self.connections if c.state == "open" and not c.callers and _matches(c.key, where)]

    def held(self, host: Origin | None = None) -> int:
        """Slots taken, dialing and closing ones included."""
        keys = [c.key for c in self.connections] + [(lane.origin, lane.host_loop) for lane in self.dials]
        return sum(host in {None, key[0]} for key in keys)

    # What happens

    def arrive(
        self, name: str = "a", host_loop: Hashable = "portal", connect_timeout: float | None = None
    ) -> Caller:
        waiter = Waiter(self.ledger.lane(origin(name), host_loop), connect_timeout)
        self._arrivals += 1
        caller = Caller(waiter, (origin(name), host_loop), self._arrivals)
        self.callers.append(caller)
        self._of_waiter[waiter] = caller
        self._enter(caller)
        return caller

    def come_back(self, caller: Caller) -> None:
        """It was given a connection that had died."""
        caller.connection = caller.waiter.entry = None
        caller.waiter.returning = True
        self._enter(caller)

    def leave(self, caller: Caller) -> None:
        """Before it has used what it may have been given."""
        if caller.connection is not None:
            caller.connection.callers.discard(caller)
            caller.connection.due = False
        self._end(caller, "left")
        self.carry_out(self.ledger.cancel(caller.waiter, self.now))

    def expect(self, caller: Caller) -> None:
        """It has all it wants; its connection comes back in a moment."""
        connection = caller.connection
        assert connection is not None
        connection.due = connection.state == "open"
        self.carry_out(self.ledger.due(connection.entry, self.now))

    def release(self, caller: Caller, *, reusable: bool = True, hint: float | None = None) -> None:
        connection = caller.connection
        assert connection is not None
        connection.callers.discard(caller)
        connection.quiet_since = self.now
        connection.tainted |= not reusable
        connection.due = False
        self._end(caller, "done")
        facts = {"reusable": reusable, "hint": hint}
        self.carry_out(self.ledger.released(connection.entry, self.now, **facts))

    def connect(self, dial: Lane | None = None, capacity: int = 1) -> Connection:
        """A dial, by default the first, succeeds."""
        lane = self.dials[0] if dial is None else dial
        self.dials.remove(lane)
        connection = Connection((lane.origin, lane.host_loop), self.now, self.now)
        self.connections.append(connection)
        connection.entry, orders = self.ledger.dialed(lane, connection, capacity, self.now)
        self.carry_out(orders)
        return connection

    def fail_dial(self, dial: Lane | None = None, error: Exception | None = None) -> None:
        lane = self.dials[0] if dial is None else dial
        self.dials.remove(lane)
        self.carry_out(self.ledger.dial_failed(lane, error or OSError("refused"), self.now))

    def kill(self, connection: Connection) -> None:
        """It is gone, whether it was closing or in the middle of a call."""
        self._bury(connection)
        self.carry_out(self.ledger.died(connection.entry, self.now))

    def close_out(self) -> None:
        """What is being closed has closed."""
        while closing := [c for c in self.connections if c.state == "closing"]:
            self.kill(closing[0])

    def wait(self, seconds: float) -> None:
        """Time passes, with no alarm heard."""
        self.now += seconds

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.carry_out(self.ledger.tick(self.now))

    def drain(self) -> None:
        for connection in self.connections:
            connection.old = connection.tainted = True
        self.carry_out(self.ledger.drain(self.now))

    def retire(self, connection: Connection) -> None:
        connection.tainted = True
        self.carry_out(self.ledger.retire(connection.entry, "goaway", self.now))

    def lose_loop(self, host_loop: Hashable) -> None:
        for connection in [c for c in self.connections if c.key[1] == host_loop]:
            self._bury(connection)
        self.dials = [lane for lane in self.dials if lane.host_loop != host_loop]
        self.carry_out(self.ledger.lost_loop(host_loop, RuntimeError("the loop has ended"), self.now))

    def do(self, fact: str, *args: Any) -> None:
        """Any other fact, by its name."""
        self.carry_out(getattr(self.ledger, fact)(*args, self.now))

    # Orders

    def carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            self.orders.append(order)
            match order:
                case Serve(waiter):
                    self._serve(self._of_waiter[waiter])
                case Fail(waiter, error):
                    caller = self._of_waiter[waiter]
                    assert caller.state in {"new", "waiting"}, "settled twice"
                    caller.error = error
                    self._end(caller, "failed")
                case Dial(lane):
                    self._dial(lane)
                case Close(entry):
                    self._close(entry.connection)

    def _enter(self, caller: Caller) -> None:
        rivals = self.waiting(caller.key)
        orders = self.ledger.arrive(caller.waiter, self.now)
        if caller.waiter.entry is not None:
            assert not rivals, "a newcomer overtook"
            connection = caller.waiter.entry.connection
            assert (
                self.now < connection.quiet_since + self._longest_idle(connection)
                or connection.callers
                or (caller.waiter.lane.prewarmed)
            ), "served by an expired connection"
            self._give(caller, connection)
        elif caller.waiter.error is None:
            caller.state = "waiting"
        self.carry_out(orders)

    def _serve(self, caller: Caller) -> None:
        assert caller.state == "waiting", "settled twice"
        assert self.waiting(caller.key)[0] is caller, "served out of turn"
        assert caller.waiter.entry is not None
        self._give(caller, caller.waiter.entry.connection)

    def _give(self, caller: Caller, connection: Connection) -> None:
        assert connection.key == caller.key, "served across lanes"
        assert connection.state == "open" and not connection.tainted
        lifetime = self.ledger.limits.max_lifetime
        assert lifetime is None or self.now < connection.opened_at + lifetime
        caller.state, caller.connection = "served", connection
        connection.callers.add(caller)
        assert len(connection.callers) <= connection.entry.capacity, (
            "more streams than the connection carries"
        )

    def _dial(self, lane: Lane) -> None:
        self.dials.append(lane)
        assert not self.ledger.closed
        assert self.held() <= self.ledger.limits.max_connections, "the bound is exceeded"
        per_host = self.ledger.limits.max_connections_per_host
        assert per_host is None or self.held(lane.origin) <= per_host, "the host's bound is exceeded"

    def _close(self, connection: Connection) -> None:
        assert connection.state == "open", "closed twice"
        assert self.ledger.closed or not connection.callers, "a call was cut"
        connection.state = "closing"

    def _bury(self, connection: Connection) -> None:
        connection.state = "dead"
        self.connections.remove(connection)

    def _end(self, caller: Caller, state: str) -> None:
        caller.state = state
        self.callers.remove(caller)

    def _longest_idle(self, connection: Connection) -> float:
        expiry = self.ledger.limits.keepalive_expiry
        hint = connection.entry.hint
        return min(inf if expiry is None else expiry, inf if hint is None else hint)


def _matches(key: tuple[Origin, Hashable], where: dict[str, Any]) -> bool:
    return where.get("host") in {None, key[0]} and where.get("host_loop") in {None, key[1]}
