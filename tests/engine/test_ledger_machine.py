"""The ledger under thousands of random histories. After every fact its books are the world's.

200 examples; 2,000 in CI; ``LLM_POOL_EXAMPLES`` says otherwise.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llm_pool.engine.config import Limits
from tests.engine.ledger_checks import after_time, all_is_gone, books_are_right
from tests.engine.ledger_world import Caller, World, origin

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

EXAMPLES = int(os.environ.get("LLM_POOL_EXAMPLES") or (2000 if os.environ.get("CI") else 200))
EXAMPLES_IN_A_PART = 200
STEPS_TO_REST = 2000

which = st.integers(0, 11)  # one of those there are; few values, so that shrinking is quick
names = st.sampled_from("abc")
host_loops = st.sampled_from([0, 1])
limits = st.builds(
    Limits,
    max_connections=st.integers(1, 4),
    max_keepalive_connections=st.integers(0, 4),
    keepalive_expiry=st.sampled_from([None, 5.0, 0.0]),
    min_connections=st.integers(0, 2),
    max_lifetime=st.sampled_from([None, 20.0]),
    max_waiting=st.sampled_from([0, 2, 100]),
    max_connections_per_host=st.sampled_from([None, 1, 2]),
)


def pick(those: Sequence[T], number: int) -> T:
    return those[number % len(those)]


class LedgerMachine(RuleBasedStateMachine):
    """Scenarios 1 to 7, 9, 11, 12, 14 to 16, 25, 32, 41, 51, in any order."""

    sound = False  # not begun, or found wrong

    @initialize(limits=limits, expected=st.sampled_from([1, 1, 2]))
    def begin(self, limits: Limits, expected: int) -> None:
        self.world = World(limits, expects=lambda _: expected)
        self.host_loops = [0, 1]
        self.sound = True

    def served(self) -> list[Caller]:
        return [caller for caller in self.world.callers if caller.state == "served"]

    # Callers

    @rule(name=names, host_loop=host_loops)
    def arrive(self, name: str, host_loop: int) -> None:
        waiting = len(self.world.waiting())
        caller = self.world.arrive(name, self.host_loops[host_loop])
        if caller.error == "full":
            assert waiting >= self.world.ledger.limits.max_waiting

    @precondition(lambda self: self.world.callers)
    @rule(number=which)
    def leave(self, number: int) -> None:
        self.world.leave(pick(self.world.callers, number))

    @precondition(lambda self: self.served())
    @rule(
        number=which, reusable=st.sampled_from([True, True, False]), hint=st.sampled_from([None, None, 3.0])
    )
    def release(self, number: int, reusable: bool, hint: float | None) -> None:
        self.world.release(pick(self.served(), number), reusable=reusable, hint=hint)

    @precondition(lambda self: self.served())
    @rule(number=which)
    def is_about_to_release(self, number: int) -> None:
        self.world.expect(pick(self.served(), number))

    @precondition(lambda self: any(c.connection.state == "dead" for c in self.served()))
    @rule(number=which)
    def come_back(self, number: int) -> None:
        stranded = [caller for caller in self.served() if caller.connection.state == "dead"]
        self.world.come_back(pick(stranded, number))

    # Connections

    @precondition(lambda self: self.world.dials)
    @rule(number=which, capacity=st.sampled_from([1, 1, 1, 2, 3, 0]))
    def connect(self, number: int, capacity: int) -> None:
        self.world.connect(pick(self.world.dials, number), capacity)

    @precondition(lambda self: self.world.dials)
    @rule(number=which)
    def fail_dial(self, number: int) -> None:
        self.world.fail_dial(pick(self.world.dials, number))

    @precondition(lambda self: self.world.connections)
    @rule(number=which)
    def kill(self, number: int) -> None:
        self.world.kill(pick(self.world.connections, number))

    @precondition(lambda self: self.world.connections)
    @rule(number=which, capacity=st.integers(0, 3))
    def change_capacity(self, number: int, capacity: int) -> None:
        self.world.do("resized", pick(self.world.connections, number).entry, capacity)

    @precondition(lambda self: self.world.connections)
    @rule(number=which)
    def retire(self, number: int) -> None:
        self.world.retire(pick(self.world.connections, number))

    @rule(host_loop=host_loops)
    def lose_loop(self, host_loop: int) -> None:
        lost, self.host_loops[host_loop] = self.host_loops[host_loop], max(self.host_loops) + 1
        self.world.lose_loop(lost)

    # Time and intent

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 4.9, 5.0, 100.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)
        after_time(self.world)

    @rule(seconds=st.sampled_from([0.2, 6.0]))
    def time_passes_unnoticed(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(name=names, host_loop=host_loops)
    def prewarm(self, name: str, host_loop: int) -> None:
        self.world.do("prewarm", self.world.ledger.lane(origin(name), self.host_loops[host_loop]))

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def books(self) -> None:
        self.sound = False
        books_are_right(self.world)
        self.sound = True

    # The end

    def teardown(self) -> None:
        if not self.sound:
            return
        come_to_rest(self.world)
        assert not self.world.callers, "a caller is not settled"
        self.world.do("close")
        while self.world.dials:
            self.world.connect()
        for connection in list(self.world.connections):
            self.world.kill(connection)
        books_are_right(self.world)
        all_is_gone(self.world)


def come_to_rest(world: World) -> None:
    """Everything goes well from now on: dials succeed, calls end, what is closing closes."""
    for _ in range(STEPS_TO_REST):
        served = [caller for caller in world.callers if caller.state == "served"]
        closing = [c for c in world.connections if c.state == "closing"]
        if world.dials:
            world.connect()
        elif closing:
            world.kill(closing[0])
        elif served:
            world.release(served[0])
        elif world.callers and any(not c.entry.capacity for c in world.connections):
            reopen(world)
        elif world.callers:
            alarm = world.ledger.next_alarm
            assert alarm is not None, "nothing is under way for those who wait"
            world.tick(max(0.0, alarm - world.now))
        else:
            return
        books_are_right(world)
    raise AssertionError("the pool does not come to rest")


def reopen(world: World) -> None:
    """A server that took no streams for a while takes some again."""
    shut = next(c for c in world.connections if not c.entry.capacity)
    world.do("resized", shut.entry, 1)


@pytest.mark.parametrize("part", range(-(-EXAMPLES // EXAMPLES_IN_A_PART)))
def test_the_books_are_right_after_every_fact_and_at_the_end_all_is_settled(part: int) -> None:
    """Rules 5.1 to 5.4, in parts of some seconds each."""
    examples = min(EXAMPLES_IN_A_PART, EXAMPLES - part * EXAMPLES_IN_A_PART)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=False,  # or every part would be the same
            database=None,  # or a history that fails in one part would fail in all that follow
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
