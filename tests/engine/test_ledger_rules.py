"""Who is served, and how many connections there come to be: the rules one at a time."""

from __future__ import annotations

import pytest

from llm_pool.engine.config import Limits
from llm_pool.engine.ledger.state import Dial
from tests.engine.ledger_steps import CheckedWorld, idle, make, reasons, serve, states


def test_dialing_and_closing_connections_count_under_the_bound() -> None:
    """Scenario 1: a slot is free when the connection is gone, not when its end was ordered."""
    world = make(max_connections=2)
    idle(world, "a", "portal")
    waiting = [world.arrive("b", "server") for _ in range(3)]
    assert (len(world.dials), len(world.connections), world.held()) == (1, 1, 2)
    assert world.connections[0].state == "closing"
    world.close_out()
    assert (len(world.dials), world.held()) == (2, 2)
    world.connect()
    world.connect()
    assert states(waiting) == ["served", "served", "waiting"]


def test_one_more_than_may_wait_is_refused_at_once() -> None:
    """Scenario 2: the newest is refused; those who wait go on waiting."""
    world = make(max_connections=1, max_waiting=2)
    callers = [world.arrive() for _ in range(4)]
    assert states(callers) == ["waiting", "waiting", "waiting", "failed"]
    assert callers[3].error == "full"


def test_callers_for_whom_a_dial_is_on_its_way_do_not_count_as_waiting() -> None:
    """Scenario 2: none may wait, and still all for whom there is room are served."""
    world = make(max_connections=3, max_waiting=0)
    callers = [world.arrive() for _ in range(4)]
    assert states(callers) == ["waiting", "waiting", "waiting", "failed"]


def test_only_who_finds_no_room_to_dial_is_queued() -> None:
    world = make(max_connections=2)
    callers = serve(world, times=2)
    assert world.ledger.queued == 0, "each had a dial of its own"
    callers += [world.arrive("a"), world.arrive("b")]
    assert world.ledger.queued == 2
    world.release(callers[0])
    world.come_back(callers[2])
    assert world.ledger.queued == 2, "a call is counted once"


def test_who_makes_room_by_the_end_of_an_idle_connection_is_not_queued() -> None:
    world = make(max_connections=1)
    idle(world, "a")
    world.arrive("b")
    assert world.ledger.queued == 0


def test_who_waits_for_an_origin_that_cannot_be_reached_is_not_queued() -> None:
    world = make(max_connections=5)
    world.arrive()
    world.fail_dial()
    world.arrive()
    world.arrive()
    assert (world.ledger.waiting, world.ledger.queued) == (2, 0)


def test_who_is_refused_has_not_been_queued() -> None:
    world = make(max_connections=1, max_waiting=1)
    serve(world)
    assert states([world.arrive(), world.arrive()]) == ["waiting", "failed"]
    assert world.ledger.queued == 1


def test_who_left_makes_room_for_another_to_wait() -> None:
    """Scenario 2: a place in the queue is free at once."""
    world = make(max_connections=1, max_waiting=1)
    (first,) = serve(world)
    world.leave(world.arrive())
    second = world.arrive()
    world.release(first)
    assert second.state == "served"


def test_waiters_are_served_in_the_order_they_came() -> None:
    """Scenario 3: over dials and releases alike."""
    world = make(max_connections=2)
    callers = [world.arrive() for _ in range(5)]
    world.connect()
    world.connect()
    assert states(callers) == ["served", "served", "waiting", "waiting", "waiting"]
    world.release(callers[1])
    world.release(callers[0])
    assert states(callers[2:]) == ["served", "served", "waiting"]


def test_who_found_a_dead_connection_keeps_its_place() -> None:
    """Scenario 3: and among several of them the one who came first is first."""
    world = make(max_connections=3)
    first, second, third = serve(world, times=3)
    last = world.arrive()
    for caller in (first, second):
        world.kill(caller.connection)
    world.come_back(second)
    world.come_back(first)
    world.release(third)
    assert states([first, second, last]) == ["served", "waiting", "waiting"]
    world.connect()
    assert states([second, last]) == ["served", "waiting"]


def test_who_returns_is_never_refused_for_want_of_room() -> None:
    """Scenario 2: it was admitted when it came."""
    world = make(max_connections=1, max_waiting=0)
    (caller,) = serve(world)
    world.kill(caller.connection)
    serve(world, "b")
    world.come_back(caller)
    assert caller.state == "waiting"


def test_a_call_is_counted_once_however_often_it_returns() -> None:
    """Scenario 27: three idle connections are dead, and no statistic shows more than one call."""
    world = make()
    idle(world, times=3)
    caller = world.arrive()
    while caller.state == "served":
        world.kill(caller.connection)
        world.come_back(caller)
    assert (world.ledger.requests, world.ledger.connections.reused) == (4, 0)


def test_a_connection_that_was_not_used_was_not_reused() -> None:
    """Scenario 15: the caller left before it took what it was given."""
    world = make()
    idle(world)
    world.leave(world.arrive())
    assert world.ledger.connections.reused == 0


def test_a_waiter_that_left_takes_no_connection_with_it() -> None:
    """Scenario 5: its dial goes on and feeds the pool, or serves another."""
    world = make()
    world.leave(world.arrive())
    world.connect()
    assert len(world.idle()) == 1


def test_a_connection_given_to_one_who_has_just_left_goes_to_the_next() -> None:
    """Scenario 15: unused, and with no new lease of life."""
    world = make(max_connections=1, keepalive_expiry=10.0)
    (first,) = serve(world)
    second, third = world.arrive(), world.arrive()
    world.release(first)
    world.wait(9.0)
    world.leave(second)
    assert third.state == "served"
    world.leave(third)
    world.tick(1.0)
    assert not world.idle(), "it has been idle for 10 s, whoever looked at it"


def test_no_more_dials_than_callers_in_need() -> None:
    """Scenario 9: one each, and none for those who left before there was room."""
    world = make(max_connections=10)
    for _ in range(3):
        world.arrive()
    assert len(world.dials) == 3


def test_a_freed_connection_beats_a_dial_which_then_feeds_the_pool() -> None:
    """Scenario 9: nobody waits for the slow one."""
    world = make()
    (first,) = serve(world)
    second = world.arrive()
    world.release(first)
    assert second.state == "served"
    world.connect()
    assert len(world.idle()) == 1
    assert world.arrive().state == "served"


def test_nobody_dials_for_want_of_a_connection_that_is_due() -> None:
    """Scenario 9: it serves one; for the second there is need."""
    world = make(max_waiting=0)
    (first,) = serve(world)
    world.expect(first)
    world.expect(first)
    second = world.arrive()
    assert (world.dials, second.state) == ([], "waiting")
    third = world.arrive()
    assert len(world.dials) == 1
    world.release(first)
    assert states([second, third]) == ["served", "waiting"]


@pytest.mark.parametrize("end", ["unclean", "dead", "drained", "retired"])
def test_who_counted_on_a_connection_that_was_due_is_dialed_for_if_it_does_not_come(end: str) -> None:
    """Scenario 9: at once."""
    world = make()
    (first,) = serve(world)
    assert first.connection is not None
    world.expect(first)
    world.arrive()
    if end == "unclean":
        world.release(first, reusable=False)
    elif end == "dead":
        world.kill(first.connection)
    elif end == "drained":
        world.drain()
    else:
        world.retire(first.connection)
    assert len(world.dials) == 1


def test_callers_share_the_dial_that_will_carry_them_all() -> None:
    """Scenario 41: one connection for a hundred streams; the next when that is known to be too few."""
    world = CheckedWorld(Limits(), expects=lambda _: 100)
    callers = [world.arrive() for _ in range(5)]
    assert len(world.dials) == 1
    world.connect(capacity=2)
    assert states(callers).count("served") == 2
    assert len(world.dials) == 2


def test_a_lowered_capacity_is_obeyed_and_a_raised_one_used() -> None:
    """Scenario 41: at once."""
    world = make(max_connections=1)
    callers = [world.arrive() for _ in range(4)]
    world.connect(capacity=2)
    entry = callers[0].connection.entry
    world.do("resized", entry, 1)
    world.release(callers[0])
    assert states(callers[1:]) == ["served", "waiting", "waiting"]
    world.do("resized", entry, 3)
    assert states(callers[1:]) == ["served", "served", "served"]


def test_a_retired_connection_takes_nobody_however_much_it_could_carry() -> None:
    """Scenario 42: the limit is raised after the goodbye."""
    world = make(max_connections=1)
    callers = [world.arrive() for _ in range(2)]
    world.connect(capacity=1)
    world.retire(callers[0].connection)
    world.do("resized", callers[0].connection.entry, 9)
    assert callers[1].state == "waiting"
    world.release(callers[0])
    assert reasons(world) == ["goaway"]


def test_a_server_that_takes_no_streams_for_now_is_not_dialed_again_and_again() -> None:
    """Scenario 46: what is open will serve when it may."""
    world = make()
    caller = world.arrive()
    connection = world.connect(capacity=0)
    assert not world.dials
    world.do("resized", connection.entry, 2)
    assert caller.state == "served"
    world.release(caller)
    world.do("resized", connection.entry, 0)
    assert states([world.arrive(), world.arrive()]) == ["waiting", "waiting"]
    assert not world.dials, "it is expected to carry two again"


def test_who_counted_on_a_connection_that_made_room_for_another_is_dialed_for_again() -> None:
    """Scenario 46: it took no streams for now, and had idled longest."""
    world = make(max_connections=1)
    first = world.arrive("a")
    world.connect(capacity=0)
    second = world.arrive("b")
    world.close_out()
    world.connect()
    world.release(second)
    world.close_out()
    world.connect()
    assert first.state == "served"


def test_who_counted_on_a_connection_that_was_one_too_many_is_dialed_for_again() -> None:
    """Scenario 46: more idled than may."""
    world = make(max_keepalive_connections=1)
    caller = world.arrive("a")
    world.connect(capacity=0)
    idle(world, "b")
    world.connect()
    assert caller.state == "served"


def test_a_connection_without_streams_is_not_replaced_by_another_like_it() -> None:
    """Scenario 46: at the bound, with more callers than it will carry."""
    world = make(max_connections=1)
    for _ in range(3):
        world.arrive()
    world.connect(capacity=0)
    assert not reasons(world)


def test_a_connection_without_streams_that_is_waited_for_is_left_to_its_own_by_who_has_others() -> None:
    """Scenario 46: closed for a lane that has some, it would be dialed again by the next turn."""
    world = make(max_connections=2)
    world.arrive("a")
    world.connect(capacity=0)
    served = world.arrive("b")
    world.connect()
    assert states([served, world.arrive("b")]) == ["served", "waiting"]
    assert not reasons(world)


def test_a_connection_without_streams_that_nobody_waits_for_makes_room() -> None:
    """Scenario 46: its only caller has left."""
    world = make(max_connections=2)
    caller = world.arrive("a")
    world.connect(capacity=0)
    world.leave(caller)
    world.arrive("b")
    world.connect()
    world.arrive("b")
    assert reasons(world) == ["evicted"]


def test_who_looks_for_a_slot_looks_behind_a_connection_that_is_waited_for() -> None:
    """Scenarios 9 and 46: the one to close is the next, whichever lane lacks it."""
    world = make(max_connections=3)
    world.arrive("a")
    world.connect(capacity=0)
    idle(world, "c")
    served = world.arrive("b")
    world.connect()
    assert states([served, world.arrive("b")]) == ["served", "waiting"]
    assert reasons(world) == ["evicted"]
    assert [connection.key[0].host for connection in world.connections if connection.state == "closing"] == [
        "c"
    ]


def test_the_dial_has_the_connect_timeout_of_the_caller_it_is_for() -> None:
    """Scenario 18: in seconds."""
    world = make()
    world.arrive(connect_timeout=1.5)
    assert [order.connect_timeout for order in world.orders if isinstance(order, Dial)] == [1.5]
