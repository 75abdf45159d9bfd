"""Steps that the tests of the ledger's rules are made of. After every fact the books are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.engine.config import Limits
from llm_pool.engine.ledger.state import Close
from tests.engine.ledger_checks import books_are_right
from tests.engine.ledger_world import Caller, Connection, World

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from llm_pool.engine.ledger.state import Order

__all__ = ["CheckedWorld", "idle", "make", "reasons", "serve", "states"]


class CheckedWorld(World):
    """A world that looks at the books after each fact."""

    def carry_out(self, orders: Iterable[Order]) -> None:
        super().carry_out(orders)
        books_are_right(self)


def make(**limits: Any) -> World:
    """A pool whose connections live for ever, unless told otherwise."""
    return CheckedWorld(Limits(**{"max_lifetime": None, **limits}))


def serve(world: World, name: str = "a", host_loop: Hashable = "portal", times: int = 1) -> list[Caller]:
    """Callers, each in the middle of a call."""
    callers = [world.arrive(name, host_loop) for _ in range(times)]
    while world.dials:
        world.connect()
    return callers


def idle(world: World, name: str = "a", host_loop: Hashable = "portal", times: int = 1) -> list[Connection]:
    """Connections at rest, the one that has idled longest first."""
    connections = []
    for caller in serve(world, name, host_loop, times):
        assert caller.connection is not None
        connections.append(caller.connection)
        world.release(caller)
    return connections


def states(callers: Iterable[Caller]) -> list[str]:
    return [caller.state for caller in callers]


def reasons(world: World) -> list[str]:
    """Why connections were closed, in order."""
    return [order.reason for order in world.orders if isinstance(order, Close)]
