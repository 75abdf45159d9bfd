"""Random histories of the ledger, with all checks after every fact.

``LLM_POOL_EXAMPLES`` sets the number of histories; by default 200, and 2,000 in CI.
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
from tests.engine.ledger_checks import check_after_tick, check_nothing_left, check_world
from tests.engine.ledger_world import Caller, World, origin

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

EXAMPLES = int(os.environ.get("LLM_POOL_EXAMPLES") or (2000 if os.environ.get("CI") else 200))
EXAMPLES_IN_A_PART = 200
STEPS_TO_FINISH = 2000

indexes = st.integers(0, 11)  # few values, so that hypothesis shrinks a failure quickly
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


def pick(items: Sequence[T], index: int) -> T:
    return items[index % len(items)]


class LedgerMachine(RuleBasedStateMachine):
    """Scenarios 1 to 7, 9, 11, 12, 14 to 16, 25, 32, 41, 51, in any order."""

    passed = False  # whether the last checks have passed

    @initialize(limits=limits, expected_capacity=st.sampled_from([1, 1, 2]))
    def begin(self, limits: Limits, expected_capacity: int) -> None:
        self.world = World(limits, expected_capacity=lambda _: expected_capacity)
        self.host_loops = [0, 1]
        self.passed = True

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
    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        self.world.cancel(pick(self.world.callers, index))

    @precondition(lambda self: self.served())
    @rule(
        index=indexes, reusable=st.sampled_from([True, True, False]), hint=st.sampled_from([None, None, 3.0])
    )
    def release(self, index: int, reusable: bool, hint: float | None) -> None:
        self.world.release(pick(self.served(), index), reusable=reusable, hint=hint)

    @precondition(lambda self: self.served())
    @rule(index=indexes)
    def expect_release(self, index: int) -> None:
        self.world.expect_release(pick(self.served(), index))

    @precondition(lambda self: any(c.connection.state == "dead" for c in self.served()))
    @rule(index=indexes)
    def return_to_queue(self, index: int) -> None:
        returning = [caller for caller in self.served() if caller.connection.state == "dead"]
        self.world.return_to_queue(pick(returning, index))

    # Connections

    @precondition(lambda self: self.world.dials)
    @rule(index=indexes, capacity=st.sampled_from([1, 1, 1, 2, 3, 0]))
    def connect(self, index: int, capacity: int) -> None:
        self.world.connect(pick(self.world.dials, index), capacity)

    @precondition(lambda self: self.world.dials)
    @rule(index=indexes)
    def fail_dial(self, index: int) -> None:
        self.world.fail_dial(pick(self.world.dials, index))

    @precondition(lambda self: self.world.connections)
    @rule(index=indexes)
    def kill(self, index: int) -> None:
        self.world.kill(pick(self.world.connections, index))

    @precondition(lambda self: self.world.connections)
    @rule(index=indexes, capacity=st.integers(0, 3))
    def change_capacity(self, index: int, capacity: int) -> None:
        self.world.do("resized", pick(self.world.connections, index).entry, capacity)

    @precondition(lambda self: self.world.connections)
    @rule(index=indexes)
    def retire(self, index: int) -> None:
        self.world.retire(pick(self.world.connections, index))

    @rule(host_loop=host_loops)
    def lose_loop(self, host_loop: int) -> None:
        lost, self.host_loops[host_loop] = self.host_loops[host_loop], max(self.host_loops) + 1
        self.world.lose_loop(lost)

    # Time, prewarming and draining

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 4.9, 5.0, 100.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)
        check_after_tick(self.world)

    @rule(seconds=st.sampled_from([0.2, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(name=names, host_loop=host_loops)
    def prewarm(self, name: str, host_loop: int) -> None:
        self.world.do("prewarm", self.world.ledger.dial_policy.lane(origin(name), self.host_loops[host_loop]))

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def run_checks(self) -> None:
        self.passed = False
        check_world(self.world)
        self.passed = True

    # The end

    def teardown(self) -> None:
        if not self.passed:
            return
        finish_all(self.world)
        assert not self.world.callers, "a caller is still waiting or served"
        self.world.do("close")
        while self.world.dials:
            self.world.connect()
        for connection in list(self.world.connections):
            self.world.kill(connection)
        check_world(self.world)
        check_nothing_left(self.world)


def finish_all(world: World) -> None:
    """Let dials succeed, calls end and closing connections close, until nothing is under way."""
    for _ in range(STEPS_TO_FINISH):
        served = [caller for caller in world.callers if caller.state == "served"]
        closing = [c for c in world.connections if c.state == "closing"]
        if world.dials:
            world.connect()
        elif closing:
            world.kill(closing[0])
        elif served:
            world.release(served[0])
        elif world.callers and any(not c.entry.capacity for c in world.connections):
            unblock(world)
        elif world.callers:
            next_timer_at = world.ledger.timers.next_at
            assert next_timer_at is not None, "nothing is under way for the waiters"
            world.tick(max(0.0, next_timer_at - world.now))
        else:
            return
        check_world(world)
    raise AssertionError("something is still under way")


def unblock(world: World) -> None:
    """Raise the capacity of a blocked connection."""
    blocked = next(c for c in world.connections if not c.entry.capacity)
    world.do("resized", blocked.entry, 1)


@pytest.mark.parametrize("part", range(-(-EXAMPLES // EXAMPLES_IN_A_PART)))
def test_the_checks_pass_after_every_fact_and_nothing_is_left_at_the_end(part: int) -> None:
    """Split into parts that take a few seconds each."""
    examples = min(EXAMPLES_IN_A_PART, EXAMPLES - part * EXAMPLES_IN_A_PART)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=False,  # otherwise every part would be the same
            database=None,  # otherwise a history that fails in one part would fail in all later ones
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
