"""A simulation of what surrounds a ledger: callers, connections and a clock, in plain lists."""

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
    """A simulated connection.

    ``key``           its lane's origin and host loop
    ``opened_at``     when its dial succeeded
    ``last_used_at``  when a call on it last ended; at first ``opened_at``
    ``entry``         its record in the ledger
    ``state``         "open", "closing" or "dead"
    ``callers``       the callers that use it
    ``release_due``   whether a call on it is about to end
    ``unusable``      whether it must not be given to another caller
    ``draining``      whether a drain has begun since it was opened
    """

    key: tuple[Origin, Hashable]
    opened_at: float
    last_used_at: float
    entry: Entry = field(init=False)
    state: str = "open"
    callers: set[Caller] = field(default_factory=set)
    release_due: bool = False
    unusable: bool = False
    draining: bool = False


@dataclass(eq=False)
class Caller:
    """A simulated caller.

    ``waiter``      its waiter in the ledger
    ``key``         its lane's origin and host loop
    ``number``      its place in the order of arrival
    ``state``       "new", "waiting", "served", "done", "failed" or "cancelled"
    ``connection``  the connection that it was given
    ``error``       why the ledger failed it; None if it did not
    """

    waiter: Waiter
    key: tuple[Origin, Hashable]
    number: int
    state: str = "new"
    connection: Connection | None = None
    error: Any = None


class World:
    """Enters facts into a ledger, carries out its orders, and asserts that each order is allowed.

    ``now``          the simulated time, in seconds; only ``tick`` and ``pass_time`` change it
    ``callers``      callers that are neither done, failed nor cancelled
    ``connections``  connections that are not dead
    ``dials``        the lanes of the dials under way
    ``orders``       all orders so far
    """

    def __init__(self, limits: Limits, **options: Any) -> None:
        self.ledger = Ledger(limits, jitter=lambda: 0.5, **options)
        self.now = 1000.0
        self.callers: list[Caller] = []
        self.connections: list[Connection] = []
        self.dials: list[Lane] = []
        self.orders: list[Order] = []
        self._of_waiter: dict[Waiter, Caller] = {}
        self._arrivals = 0

    # State

    def waiting(self, key: tuple[Origin, Hashable] | None = None) -> list[Caller]:
        """The waiting callers of one lane, or of all, in order of arrival."""
        queue = [c for c in self.callers if c.state == "waiting" and key in {None, c.key}]
        return sorted(queue, key=lambda caller: caller.number)

    def idle(self, **where: Any) -> list[Connection]:
        """The idle connections; with ``host`` or ``host_loop``, only those of that host or loop."""
        return [c for c in self.connections if c.state == "open" and not c.callers and _matches(c.key, where)]

    def held(self, host: Origin | None = None) -> int:
        """The number of slots in use, by dialing and closing connections too: of one host, or of all."""
        keys = [c.key for c in self.connections] + [(lane.origin, lane.host_loop) for lane in self.dials]
        return sum(host in {None, key[0]} for key in keys)

    # Facts

    def arrive(
        self, name: str = "a", host_loop: Hashable = "portal", connect_timeout: float | None = None
    ) -> Caller:
        waiter = Waiter(self.ledger.dial_policy.lane(origin(name), host_loop), connect_timeout)
        self._arrivals += 1
        caller = Caller(waiter, (origin(name), host_loop), self._arrivals)
        self.callers.append(caller)
        self._of_waiter[waiter] = caller
        self._arrive(caller)
        return caller

    def return_to_queue(self, caller: Caller) -> None:
        """Let a caller arrive again, because it was given a connection that had died."""
        caller.connection = caller.waiter.entry = None
        caller.waiter.returning = True
        self._arrive(caller)

    def cancel(self, caller: Caller) -> None:
        """Cancel a caller, while it waits or before it has used its connection."""
        if caller.connection is not None:
            caller.connection.callers.discard(caller)
            caller.connection.release_due = False
        self._end(caller, "cancelled")
        self.carry_out(self.ledger.cancel(caller.waiter, self.now))

    def expect_release(self, caller: Caller) -> None:
        """Enter that a call is about to end."""
        connection = caller.connection
        assert connection is not None
        connection.release_due = connection.state == "open"
        self.carry_out(self.ledger.due(connection.entry, self.now))

    def release(self, caller: Caller, *, reusable: bool = True, hint: float | None = None) -> None:
        connection = caller.connection
        assert connection is not None
        connection.callers.discard(caller)
        connection.last_used_at = self.now
        connection.unusable |= not reusable
        connection.release_due = False
        self._end(caller, "done")
        facts = {"reusable": reusable, "hint": hint}
        self.carry_out(self.ledger.released(connection.entry, self.now, **facts))

    def connect(self, dial: Lane | None = None, capacity: int = 1) -> Connection:
        """Let a dial, by default the first, succeed."""
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
        """Enter that a connection has closed or was lost; callers may still be using it."""
        self._remove(connection)
        self.carry_out(self.ledger.died(connection.entry, self.now))

    def finish_closing(self) -> None:
        """Let every closing connection end."""
        while closing := [c for c in self.connections if c.state == "closing"]:
            self.kill(closing[0])

    def pass_time(self, seconds: float) -> None:
        """Let time pass without a tick."""
        self.now += seconds

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.carry_out(self.ledger.tick(self.now))

    def drain(self) -> None:
        for connection in self.connections:
            connection.draining = connection.unusable = True
        self.carry_out(self.ledger.drain(self.now))

    def retire(self, connection: Connection, reason: str = "goaway") -> None:
        connection.unusable = True
        self.carry_out(self.ledger.retire(connection.entry, reason, self.now))

    def lose_loop(self, host_loop: Hashable) -> None:
        for connection in [c for c in self.connections if c.key[1] == host_loop]:
            self._remove(connection)
        self.dials = [lane for lane in self.dials if lane.host_loop != host_loop]
        self.carry_out(self.ledger.lost_loop(host_loop, RuntimeError("the loop has ended"), self.now))

    def do(self, fact: str, *args: Any) -> None:
        """Enter any other fact, by the name of the ledger's method."""
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
                    assert caller.state in {"new", "waiting"}, "it was served or has failed already"
                    caller.error = error
                    self._end(caller, "failed")
                case Dial(lane):
                    self._dial(lane)
                case Close(entry):
                    self._close(entry.connection)

    def _arrive(self, caller: Caller) -> None:
        ahead = self.waiting(caller.key)
        orders = self.ledger.arrive(caller.waiter, self.now)
        if caller.waiter.entry is not None:
            assert not ahead, "a newcomer was served before a waiter"
            connection = caller.waiter.entry.connection
            assert (
                self.now < connection.last_used_at + self._longest_idle(connection)
                or connection.callers
                or caller.waiter.lane.prewarmed
            ), "served by an expired connection"
            self._assign(caller, connection)
        elif caller.waiter.error is None:
            caller.state = "waiting"
        self.carry_out(orders)

    def _serve(self, caller: Caller) -> None:
        assert caller.state == "waiting", "it was served or has failed already"
        assert self.waiting(caller.key)[0] is caller, "served before an earlier waiter"
        assert caller.waiter.entry is not None
        self._assign(caller, caller.waiter.entry.connection)

    def _assign(self, caller: Caller, connection: Connection) -> None:
        assert connection.key == caller.key, "served across lanes"
        assert connection.state == "open" and not connection.unusable
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
        assert per_host is None or self.held(lane.origin) <= per_host, "the origin's bound is exceeded"

    def _close(self, connection: Connection) -> None:
        assert connection.state == "open", "it is closed twice"
        assert self.ledger.closed or not connection.callers, "a connection in use was closed"
        connection.state = "closing"

    def _remove(self, connection: Connection) -> None:
        connection.state = "dead"
        self.connections.remove(connection)

    def _end(self, caller: Caller, state: str) -> None:
        caller.state = state
        self.callers.remove(caller)

    def _longest_idle(self, connection: Connection) -> float:
        expiry = self.ledger.limits.keepalive_expiry
        hint = connection.entry.keepalive_hint
        return min(inf if expiry is None else expiry, inf if hint is None else hint)


def _matches(key: tuple[Origin, Hashable], where: dict[str, Any]) -> bool:
    return where.get("host") in {None, key[0]} and where.get("host_loop") in {None, key[1]}
