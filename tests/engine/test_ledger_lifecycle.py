"""Origins that cannot be reached, host loops that end, and a pool that is drained or closed."""

from __future__ import annotations

import weakref

import pytest

from llm_pool.engine.ledger.state import Queue, Waiter
from llm_pool.exceptions import ConnectFailed
from tests.engine.ledger_checks import all_is_gone
from tests.engine.ledger_steps import idle, make, reasons, serve, states
from tests.engine.ledger_world import origin


def test_when_all_dials_fail_every_waiter_gets_the_cause() -> None:
    """Scenario 11: also those for whom there was no room."""
    world = make(max_connections=2)
    callers = [world.arrive() for _ in range(4)]
    cause = OSError("refused")
    world.fail_dial(error=cause)
    assert states(callers).count("failed") == 1, "another dial is on its way"
    world.fail_dial(error=cause)
    assert [caller.error for caller in callers] == [cause] * 4


def test_nothing_is_kept_of_what_a_failed_dial_had_in_hand() -> None:
    """An error's traceback holds the dial's frames: transport, TLS buffers, and connection."""
    world = make()
    world.leave(world.arrive())
    cause = ConnectFailed("refused")
    gone = weakref.ref(cause)
    world.fail_dial(error=cause)
    del cause
    assert gone() is None


def test_waiters_with_a_connection_left_to_serve_them_go_on_waiting() -> None:
    """Scenario 11: a failed dial is not their error."""
    world = make()
    (first,) = serve(world)
    second = world.arrive()
    world.fail_dial()
    world.release(first)
    assert second.state == "served"


def test_after_a_failure_one_dial_at_a_time_and_not_before_a_pause() -> None:
    """Scenario 11: no storm; and all goes on when the server is back."""
    world = make()
    world.arrive()
    world.fail_dial()
    callers = [world.arrive() for _ in range(5)]
    assert not world.dials
    world.tick(0.1)
    assert len(world.dials) == 1
    world.connect()
    assert len(world.dials) == 4
    while world.dials:
        world.connect()
    assert states(callers) == ["served"] * 5


def test_pauses_grow_but_not_beyond_two_seconds_while_somebody_waits() -> None:
    """Scenario 11: half a minute while nobody does."""
    world = make()
    pauses = []
    for _ in range(8):
        world.arrive()
        if not world.dials:
            pauses.append(world.ledger.next_alarm - world.now)
            world.tick(pauses[-1])
        world.fail_dial()
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_a_pause_is_kept_though_the_alarm_of_an_earlier_one_rings_late() -> None:
    """Scenario 11: the next probe has an alarm all the same."""
    world = make()
    world.arrive()
    world.fail_dial()
    world.wait(0.1)
    world.arrive()
    world.fail_dial()
    world.arrive()
    world.tick()
    assert not world.dials
    world.tick(0.2)
    assert len(world.dials) == 1


def test_callers_who_come_together_after_a_pause_make_one_dial() -> None:
    """Scenario 11: nobody waited when the pause ended; a wave of callers is no storm all the same."""
    world = make()
    for _ in range(3):
        wave = [world.arrive() for _ in range(10)]
        if world.now > 1000.0:
            assert len(world.dials) == 1
        while world.dials:
            world.fail_dial()
        assert states(wave) == ["failed"] * 10
        world.tick(5.0)


def test_pauses_are_short_again_when_one_has_ended_with_nobody_waiting() -> None:
    """Scenario 11: who calls now and then does not wait for seconds to hear that the server is down."""
    world = make()
    for _ in range(8):
        world.arrive()
        assert len(world.dials) == 1, "at once"
        world.fail_dial()
        next_one = world.arrive()
        assert world.ledger.next_alarm == pytest.approx(world.now + 0.1)
        world.leave(next_one)
        world.tick(5.0)


def test_a_backoff_that_nobody_comes_for_is_forgotten() -> None:
    """Callers choose the origins: what is dead must not be kept for ever."""
    world = make()
    world.arrive()
    world.fail_dial()
    world.tick(29.0)
    assert world.ledger.dial_policy.lanes()
    world.tick(world.ledger.next_alarm - world.now)
    all_is_gone(world)
    assert world.ledger.next_alarm is None


def test_unattended_retries_are_rare_until_somebody_comes() -> None:
    """Scenario 13: a dead provider costs two dials a minute, but no caller half a minute."""
    world = make(min_connections=1)
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    for _ in range(12):
        world.fail_dial()
        pause = world.ledger.next_alarm - world.now
        world.tick(pause)
    assert pause == pytest.approx(30.0)
    world.fail_dial()
    world.tick(1.0)
    world.arrive()
    assert not world.dials
    world.tick(1.0)
    assert len(world.dials) == 1


def test_a_round_of_dials_that_failed_together_counts_once() -> None:
    """Scenario 11: fifty callers at once make no longer pause than one."""
    world = make()
    for _ in range(50):
        world.arrive()
    while world.dials:
        world.fail_dial()
    world.arrive()
    world.tick(0.1)
    assert len(world.dials) == 1


def test_the_backoff_of_one_origin_delays_no_other() -> None:
    """Scenario 10: its slot is free for them."""
    world = make(max_connections=1)
    world.arrive("a")
    other = world.arrive("b")
    world.fail_dial()
    world.connect()
    assert other.state == "served"


def test_drain_closes_the_idle_and_the_others_as_they_come_back() -> None:
    """Scenario 51: no call is cut, and new connections take their place."""
    world = make()
    busy, spare = serve(world, times=2)
    world.release(spare)
    world.drain()
    assert world.ledger.outgoing == 2
    caller = world.arrive()
    world.connect()
    world.release(busy)
    world.close_out()
    assert world.ledger.outgoing == 0
    assert [c for c in world.connections if c.old] == []
    assert caller.state == "served"


def test_drain_prewarms_again() -> None:
    """Scenario 13: the minimum is kept, of new connections."""
    world = make(min_connections=2)
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    while world.dials:
        world.connect()
    world.drain()
    world.close_out()
    assert len(world.dials) == 2


def test_a_lost_loop_frees_all_that_lived_there() -> None:
    """Scenario 53: its loop has ended; the callers of the other home get the slots."""
    world = make(max_connections=2)
    serve(world, "a", "server")
    gone = [world.arrive(name, "server") for name in ("a", "a", "b")]
    other = [world.arrive("a", "portal") for _ in range(2)]
    world.lose_loop("server")
    assert [type(caller.error) for caller in gone] == [RuntimeError] * 3
    while world.dials:
        world.connect()
    assert states(other) == ["served", "served"]


def test_close_fails_all_who_wait_and_ends_all_there_is() -> None:
    """Scenario 51: a dial that succeeds too late is closed, a newcomer refused, and nothing is left."""
    world = make(max_connections=3)
    idle(world, "b")
    world.do("prewarm", world.ledger.lane(origin("b"), "portal"))
    (busy,) = serve(world)
    waiting = [world.arrive() for _ in range(2)]
    world.do("close")
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    world.connect()
    assert [caller.error for caller in [*waiting, world.arrive()]] == ["closed"] * 3
    world.release(busy)
    world.close_out()
    all_is_gone(world)
    assert world.ledger.next_alarm is None


def test_an_origin_that_is_done_with_is_forgotten() -> None:
    """Scenario 25: a million hosts, one after the other, fill no memory."""
    world = make(keepalive_expiry=1.0)
    for number in range(20):
        idle(world, f"host-{number}")
        world.tick(60.0)
        world.close_out()
    all_is_gone(world)


def test_an_origin_that_could_not_be_reached_is_forgotten_after_its_pause() -> None:
    """Scenario 11: not before, or each caller would begin a storm of its own."""
    world = make()
    world.arrive()
    world.fail_dial()
    assert len(world.ledger.dial_policy.lanes()) == 1
    world.tick(60.0)
    all_is_gone(world)


def test_the_queue_forgets_those_who_returned_and_left() -> None:
    """Scenario 14: their old places are skipped."""
    lane = make().ledger.lane(origin("a"), "portal")
    waiters = [Waiter(lane) for _ in range(4)]
    queue = Queue()
    for number, waiter in enumerate(waiters):
        waiter.number, waiter.returning = number, number < 3
    for waiter in reversed(waiters):
        queue.add(waiter)
    queue.remove(waiters[0])
    queue.remove(waiters[2])
    assert (list(queue), queue.first(), len(queue)) == ([waiters[1], waiters[3]], waiters[1], 2)


@pytest.mark.parametrize("cut", [True, False])
def test_what_ends_with_its_loop_was_not_lost_by_the_server(cut: bool) -> None:
    world = make()
    idle(world, "a", "server loop")
    serve(world, "b", "server loop")
    (other,) = idle(world, "a", "portal")
    world.ledger.loop_ends("server loop")
    for connection in world.connections[:2] if cut else ():
        world.kill(connection)
    world.lose_loop("server loop")
    world.kill(other)
    assert world.ledger.connections.closed_by_reason == {"shutdown": 2, "lost": 1}


def test_a_connection_whose_loop_is_lost_is_not_closed_to_make_room() -> None:
    """Scenarios 25 and 46: it was left to those who waited for it, and went with them."""
    world = make(max_connections=2)
    world.arrive("a", "lost")
    world.connect(capacity=0)
    world.arrive("b", "portal")
    world.connect()
    world.arrive("b", "portal")
    world.lose_loop("lost")
    assert not reasons(world)
    assert len(world.dials) == 1
