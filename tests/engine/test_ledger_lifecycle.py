"""Origins that cannot be reached, host loops that end, and a pool that is drained or closed."""

from __future__ import annotations

import weakref

import pytest

from llm_pool.engine.ledger.state import Waiter, WaiterQueue
from llm_pool.exceptions import ConnectFailed
from tests.engine.ledger_checks import check_nothing_left
from tests.engine.ledger_steps import connect_all, idle, make, prewarm, reasons, serve, states
from tests.engine.ledger_world import World, origin


def test_when_all_dials_fail_every_waiter_fails_with_the_cause() -> None:
    """Scenario 11: waiters without their own dial fail too."""
    world = make(max_connections=2)
    callers = [world.arrive() for _ in range(4)]
    cause = OSError("refused")
    world.fail_dial(error=cause)
    assert states(callers).count("failed") == 1, "another dial is under way"
    world.fail_dial(error=cause)
    assert [caller.error for caller in callers] == [cause] * 4


def test_the_error_of_a_failed_dial_is_not_kept() -> None:
    """The error's traceback would keep the objects of the dial: transport, TLS buffers, connection."""
    world = make()
    world.cancel(world.arrive())
    cause = ConnectFailed("refused")
    gone = weakref.ref(cause)
    world.fail_dial(error=cause)
    del cause
    assert gone() is None


def test_a_failed_dial_fails_no_waiter_while_another_connection_is_open() -> None:
    """Scenario 11: that connection will serve them."""
    world = make()
    (first,) = serve(world)
    second = world.arrive()
    world.fail_dial()
    world.release(first)
    assert second.state == "served"


def test_after_a_failed_dial_one_dial_follows_after_a_pause() -> None:
    """Scenario 11: when it has succeeded, the dials for the other waiters begin."""
    world = make()
    world.arrive()
    world.fail_dial()
    callers = [world.arrive() for _ in range(5)]
    assert not world.dials
    world.tick(0.1)
    assert len(world.dials) == 1
    world.connect()
    assert len(world.dials) == 4
    connect_all(world)
    assert states(callers) == ["served"] * 5


def test_pauses_grow_up_to_two_seconds_while_callers_wait() -> None:
    """Scenario 11: without callers, up to 30 seconds."""
    world = make()
    pauses = []
    for _ in range(8):
        world.arrive()
        if not world.dials:
            pauses.append(world.ledger.timers.next_at - world.now)
            world.tick(pauses[-1])
        world.fail_dial()
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_a_late_tick_for_an_earlier_pause_does_not_end_the_present_one() -> None:
    """Scenario 11: the current pause has its own timer."""
    world = make()
    world.arrive()
    world.fail_dial()
    world.pass_time(0.1)
    world.arrive()
    world.fail_dial()
    world.arrive()
    world.tick()
    assert not world.dials
    world.tick(0.2)
    assert len(world.dials) == 1


def test_callers_that_arrive_together_after_a_pause_cause_one_dial() -> None:
    """Scenario 11: even if no caller waited when the pause ended."""
    world = make()
    for _ in range(3):
        wave = [world.arrive() for _ in range(10)]
        if world.now > 1000.0:
            assert len(world.dials) == 1
        while world.dials:
            world.fail_dial()
        assert states(wave) == ["failed"] * 10
        world.tick(5.0)


def test_pauses_are_short_again_after_one_that_ended_without_waiters() -> None:
    """Scenario 11: an occasional caller soon gets the error of a server that is down."""
    world = make()
    for _ in range(8):
        world.arrive()
        assert len(world.dials) == 1, "at once"
        world.fail_dial()
        another = world.arrive()
        assert world.ledger.timers.next_at == pytest.approx(world.now + 0.1)
        world.cancel(another)
        world.tick(5.0)


def test_a_backoff_without_callers_is_forgotten() -> None:
    """Scenario 11: not earlier, but then: callers choose the origins, and memory must not grow with them."""
    world = make()
    world.arrive()
    world.fail_dial()
    world.tick(29.0)
    assert world.ledger.dial_policy.lanes()
    world.tick(world.ledger.timers.next_at - world.now)
    check_nothing_left(world)
    assert world.ledger.timers.next_at is None


def test_prewarm_pauses_grow_to_30_seconds_and_are_short_for_a_caller() -> None:
    """Scenario 13: two dials a minute to a dead provider; a caller waits 2 s at most."""
    world = make(min_connections=1)
    prewarm(world)
    for _ in range(12):
        world.fail_dial()
        pause = world.ledger.timers.next_at - world.now
        world.tick(pause)
    assert pause == pytest.approx(30.0)
    world.fail_dial()
    world.tick(1.0)
    world.arrive()
    assert not world.dials
    world.tick(1.0)
    assert len(world.dials) == 1


def test_prewarming_pauses_if_new_connections_are_lost_at_once() -> None:
    """Scenario 13: pauses grow to 30 s; a caller's dial does not wait for their end."""
    world = make(min_connections=2, keepalive_expiry=None)
    prewarm(world)
    for _ in range(12):
        _connect_and_lose_all(world)
        assert not world.dials
        pause = world.ledger.timers.next_at - world.now
        world.tick(pause)
        assert len(world.dials) == 2
    assert pause == pytest.approx(30.0)
    _connect_and_lose_all(world)
    caller = world.arrive()
    world.connect()
    assert caller.state == "served"


@pytest.mark.parametrize("end", ["after a while", "after use"])
def test_a_prewarmed_connection_that_was_open_for_a_while_is_replaced_at_once(end: str) -> None:
    """Scenario 13: the pauses are short again, too."""
    world = make(min_connections=1, keepalive_expiry=None)
    prewarm(world)
    for _ in range(8):
        _connect_and_lose_all(world)
        world.tick(world.ledger.timers.next_at - world.now)
    connection = world.connect()
    if end == "after use":
        caller = world.arrive()
        world.pass_time(0.1)
        world.release(caller)
    else:
        world.pass_time(1.0)
    world.retire(connection, "lost")
    assert len(world.dials) == 1
    _connect_and_lose_all(world)
    assert world.ledger.timers.next_at - world.now < 0.2


def _connect_and_lose_all(world: World) -> None:
    opened = [world.connect() for _ in list(world.dials)]
    for connection in opened:
        world.retire(connection, "lost")
    world.finish_closing()


def test_dials_that_fail_together_cause_one_short_pause() -> None:
    """Scenario 11: fifty failed dials cause no longer pause than one."""
    world = make()
    for _ in range(50):
        world.arrive()
    while world.dials:
        world.fail_dial()
    world.arrive()
    world.tick(0.1)
    assert len(world.dials) == 1


def test_the_backoff_of_one_origin_does_not_delay_another() -> None:
    """Scenario 10: its slot is free for the other."""
    world = make(max_connections=1)
    world.arrive("a")
    other = world.arrive("b")
    world.fail_dial()
    world.connect()
    assert other.state == "served"


def test_drain_closes_idle_connections_now_and_the_others_after_their_call() -> None:
    """Scenario 51: no call is aborted, and new connections replace the drained ones."""
    world = make()
    busy, spare = serve(world, times=2)
    world.release(spare)
    world.drain()
    assert world.ledger.draining == 2
    caller = world.arrive()
    world.connect()
    world.release(busy)
    world.finish_closing()
    assert world.ledger.draining == 0
    assert [c for c in world.connections if c.draining] == []
    assert caller.state == "served"


def test_drain_replaces_prewarmed_connections() -> None:
    """Scenario 13: the minimum is kept, with new connections."""
    world = make(min_connections=2)
    prewarm(world)
    connect_all(world)
    world.drain()
    world.finish_closing()
    assert len(world.dials) == 2


def test_a_lost_loop_fails_its_waiters_and_frees_its_slots() -> None:
    """Scenario 53: the callers on the other loop get the slots."""
    world = make(max_connections=2)
    serve(world, "a", "server")
    gone = [world.arrive(name, "server") for name in ("a", "a", "b")]
    other = [world.arrive("a", "portal") for _ in range(2)]
    world.lose_loop("server")
    assert [type(caller.error) for caller in gone] == [RuntimeError] * 3
    connect_all(world)
    assert states(other) == ["served", "served"]


def test_close_fails_waiters_and_closes_every_connection() -> None:
    """Scenario 51: a new connection is closed, a new caller refused, and nothing is left."""
    world = make(max_connections=3)
    idle(world, "b")
    prewarm(world, "b")
    (busy,) = serve(world)
    waiting = [world.arrive() for _ in range(2)]
    world.do("close")
    prewarm(world)
    world.connect()
    assert [caller.error for caller in [*waiting, world.arrive()]] == ["closed"] * 3
    world.release(busy)
    world.finish_closing()
    check_nothing_left(world)
    assert world.ledger.timers.next_at is None


def test_an_unused_origin_is_forgotten() -> None:
    """Scenario 25: many hosts, one after the other, use no memory."""
    world = make(keepalive_expiry=1.0)
    for number in range(20):
        idle(world, f"host-{number}")
        world.tick(60.0)
        world.finish_closing()
    check_nothing_left(world)


def test_a_queue_skips_returned_waiters_that_were_removed() -> None:
    """Scenario 14: each of them was cancelled after it returned to the queue."""
    lane = make().ledger.dial_policy.lane(origin("a"), "portal")
    waiters = [Waiter(lane) for _ in range(4)]
    queue = WaiterQueue()
    for number, waiter in enumerate(waiters):
        waiter.number, waiter.returning = number, number < 3
    for waiter in reversed(waiters):
        queue.add(waiter)
    queue.remove(waiters[0])
    queue.remove(waiters[2])
    assert (list(queue), queue.first(), len(queue)) == ([waiters[1], waiters[3]], waiters[1], 2)


@pytest.mark.parametrize("aborted", [True, False])
def test_connections_that_end_with_their_loop_count_as_shutdown(aborted: bool) -> None:
    world = make()
    idle(world, "a", "server loop")
    serve(world, "b", "server loop")
    (other,) = idle(world, "a", "portal")
    world.ledger.loop_ends("server loop")
    for connection in world.connections[:2] if aborted else ():
        world.kill(connection)
    world.lose_loop("server loop")
    world.kill(other)
    assert world.ledger.connections.closed_by_reason == {"shutdown": 2, "lost": 1}


def test_a_connection_of_a_lost_loop_is_not_evicted() -> None:
    """Scenarios 25 and 46: it is blocked; the end of its loop frees its slot."""
    world = make(max_connections=2)
    world.arrive("a", "lost")
    world.connect(capacity=0)
    world.arrive("b", "portal")
    world.connect()
    world.arrive("b", "portal")
    world.lose_loop("lost")
    assert not reasons(world)
    assert len(world.dials) == 1
