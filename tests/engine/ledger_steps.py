"""Steps that the tests of the ledger's rules share. All checks run after every fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.engine.config import Limits
from llm_pool.engine.ledger.state import Close
from tests.engine.ledger_checks import check_world
from tests.engine.ledger_world import Caller, Connection, World, origin

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from llm_pool.engine.ledger.state import Order

__all__ = ["CheckedWorld", "connect_all", "idle", "make", "prewarm", "reasons", "serve", "states"]


class CheckedWorld(World):
    """A world that runs all checks after each fact."""

    def carry_out(self, orders: Iterable[Order]) -> None:
        super().carry_out(orders)
        check_world(self)


def make(**limits: Any) -> World:
    """A simulated pool with these limits; ``max_lifetime`` is None by default."""
    return CheckedWorld(Limits(**{"max_lifetime": None, **limits}))


def serve(world: World, name: str = "a", host_loop: Hashable = "portal", times: int = 1) -> list[Caller]:
    """Let callers arrive and all dials succeed. The callers keep their connections."""
    callers = [world.arrive(name, host_loop) for _ in range(times)]
    connect_all(world)
    return callers


def idle(world: World, name: str = "a", host_loop: Hashable = "portal", times: int = 1) -> list[Connection]:
    """Open connections and release them. Returns them, the longest idle first."""
    connections = []
    for caller in serve(world, name, host_loop, times):
        assert caller.connection is not None
        connections.append(caller.connection)
        world.release(caller)
    return connections


def prewarm(world: World, name: str = "a", host_loop: Hashable = "portal") -> None:
    """Keep ``min_connections`` open to an origin from now on."""
    world.do("prewarm", world.ledger.dial_policy.lane(origin(name), host_loop))


def connect_all(world: World) -> None:
    """Let dials succeed until none is under way."""
    while world.dials:
        world.connect()


def states(callers: Iterable[Caller]) -> list[str]:
    return [caller.state for caller in callers]


def reasons(world: World) -> list[str]:
    """The reason of each close that the ledger has ordered, in order."""
    return [order.reason for order in world.orders if isinstance(order, Close)]
