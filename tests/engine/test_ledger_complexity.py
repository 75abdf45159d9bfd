"""A fact costs the same with 10 connections and with 10,000: counted in bytecodes, not in seconds."""

from __future__ import annotations

import sys
import tracemalloc
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.engine.config import Limits
from llm_pool.engine.ledger import ledger as ledger_module
from llm_pool.engine.ledger.ledger import Ledger
from llm_pool.engine.ledger.state import Close, Dial, Entry, Lane, Waiter
from tests.engine.ledger_world import origin
from tests.fixtures.internals import newcomers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

LEDGER = ledger_module.__file__.rpartition("/")[0]
FEW, MANY = 10, 10_000
REPEATS = 5  # the lowest cost counts: now and then a dict is resized
TOOL = 4  # of sys.monitoring: an id that no known tool uses
SMALL = 8192  # bytes: a list of MANY items has ten times as many


class Pool:
    """A ledger at its limit: idle connections, half of them of another origin, and one in use.

    ``kept``: how many of the idle ones are kept for more than a moment; None: all.
    """

    def __init__(self, connections: int, kept: int | None = None) -> None:
        limits = Limits(
            max_connections=connections + 1,
            max_keepalive_connections=connections + 1 if kept is None else kept,
            max_waiting=10**6,
        )
        self.ledger = Ledger(limits, jitter=lambda: 0.5)
        self.lanes = [self.ledger.dial_policy.lane(origin(name), "portal") for name in "ab"]
        self.busy = self._dial(self.lanes[0], 0.0)
        entries = [self._dial(self.lanes[number % 2], 0.0) for number in range(connections)]
        for entry in entries:
            self.ledger.released(entry, 1.0)

    def _dial(self, lane: Lane, now: float) -> Entry:
        orders = self.ledger.arrive(Waiter(lane), now)
        assert [type(order) for order in orders] == [Dial]
        return self.ledger.dialed(lane, object(), 1, now)[0]

    def checkout(self) -> Waiter:
        waiter = Waiter(self.lanes[0])
        self.ledger.arrive(waiter, 2.0)
        return waiter

    def checkout_and_release(self) -> None:
        entry = self.checkout().entry
        assert entry is not None
        self.ledger.released(entry, 2.0)

    def checkout_and_cancel(self) -> None:
        self.ledger.cancel(self.checkout(), 2.0)

    def idle_death(self) -> None:
        self.ledger.died(next(iter(self.lanes[1].available)), 2.0)

    def death_in_use(self) -> None:
        entry = self.checkout().entry
        assert entry is not None
        self.ledger.died(entry, 2.0)

    def eviction(self) -> None:
        lane = self.ledger.dial_policy.lane(origin("c"), "portal")
        waiter = Waiter(lane)
        (close,) = self.ledger.arrive(waiter, 2.0)
        assert isinstance(close, Close)
        self.ledger.died(close.entry, 2.0)
        self.ledger.dialed(lane, object(), 1, 2.0)

    def quiet_tick(self) -> None:
        self.ledger.tick(2.0)


FACTS = [
    Pool.checkout_and_release,
    Pool.checkout_and_cancel,
    Pool.idle_death,
    Pool.death_in_use,
    Pool.eviction,
    Pool.quiet_tick,
]


def operations(act: Callable[[], Any]) -> int:
    """How many bytecode instructions of the ledger ``act`` executes."""
    count = 0

    def executed(code: CodeType, _offset: int) -> Any:
        nonlocal count
        if not code.co_filename.startswith(LEDGER):
            return DISABLE
        count += 1
        return None

    with executed_instructions(executed):
        act()
    return count


if sys.version_info >= (3, 12):
    DISABLE = sys.monitoring.DISABLE

    @contextmanager
    def executed_instructions(executed: Callable[[CodeType, int], Any]) -> Iterator[None]:
        """Call ``executed`` with each instruction that is executed."""
        monitoring, instruction = sys.monitoring, sys.monitoring.events.INSTRUCTION
        monitoring.use_tool_id(TOOL, __name__)
        monitoring.register_callback(TOOL, instruction, executed)
        monitoring.set_events(TOOL, instruction)
        try:
            yield
        finally:
            monitoring.set_events(TOOL, 0)
            monitoring.free_tool_id(TOOL)
            monitoring.restart_events()

else:
    DISABLE = None

    @contextmanager
    def executed_instructions(executed: Callable[[CodeType, int], Any]) -> Iterator[None]:
        """Call ``executed`` with each instruction that is executed."""

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            if event == "opcode":
                executed(frame.f_code, frame.f_lasti)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


def peak_bytes(act: Callable[[], Any]) -> int:
    """The peak memory of ``act``, in bytes. It shows loops in C, which are not traced: most build a list."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kept", [pytest.param(None, id="all kept"), pytest.param(1, id="one kept")])
@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_a_fact_costs_the_same_with_few_connections_and_with_many(
    fact: Callable[[Pool], None], kept: int | None
) -> None:
    few, many = Pool(FEW, kept), Pool(MANY, kept)
    cost_with_few = min(operations(lambda: fact(few)) for _ in range(REPEATS))
    cost_with_many = min(operations(lambda: fact(many)) for _ in range(REPEATS))
    assert 0 < cost_with_many <= cost_with_few
    assert min(peak_bytes(lambda: fact(many)) for _ in range(REPEATS)) < SMALL


def test_a_fact_costs_the_same_with_few_waiters_and_with_many() -> None:
    few, many = Pool(0), Pool(0)
    for pool, waiters in ((few, FEW), (many, MANY)):
        for _ in range(waiters):
            pool.checkout()

    def serve_one_and_cancel_another(pool: Pool) -> None:
        waiter = pool.checkout()
        pool.ledger.cancel(waiter, 2.0)
        orders = pool.ledger.released(pool.busy, 2.0)
        assert len(orders) == 1

    costs = [
        min(operations(lambda pool=pool: serve_one_and_cancel_another(pool)) for _ in range(REPEATS))
        for pool in (few, many)
    ]
    assert costs[0] == costs[1]
    assert min(peak_bytes(lambda: serve_one_and_cancel_another(many)) for _ in range(REPEATS)) < SMALL


def test_the_first_and_last_of_every_queue_are_found_without_a_search() -> None:
    """A dict skips each deleted key to find its first key; a count of bytecodes does not show that."""
    pool = Pool(FEW)
    lane, bound = pool.lanes[0], pool.ledger.connections.pool_bound
    for queue in (
        lane.available,
        newcomers_of(lane),
        lane.origin_bound.idle,
        bound.idle,
        *bound.dial_queues,
    ):
        assert isinstance(queue, OrderedDict)
