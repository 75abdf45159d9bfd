"""The order in which waiters are served, and how many connections are opened for them."""

from __future__ import annotations

import pytest

from llm_pool.engine.config import Limits
from llm_pool.engine.ledger.state import Dial
from tests.engine.ledger_steps import CheckedWorld, idle, make, reasons, serve, states


def test_dialing_and_closing_connections_count_in_max_connections() -> None:
    """Scenario 1: a slot is free when its connection has closed, not when the close was ordered."""
    world = make(max_connections=2)
    idle(world, "a", "portal")
    waiting = [world.arrive("b", "server") for _ in range(3)]
    assert (len(world.dials), len(world.connections), world.held()) == (1, 1, 2)
    assert world.connections[0].state == "closing"
    world.finish_closing()
    assert (len(world.dials), world.held()) == (2, 2)
    world.connect()
    world.connect()
    assert states(waiting) == ["served", "served", "waiting"]


def test_a_caller_beyond_max_waiting_is_refused_at_once() -> None:
    """Scenario 2: the newest is refused; the others still wait."""
    world = make(max_connections=1, max_waiting=2)
    callers = [world.arrive() for _ in range(4)]
    assert states(callers) == ["waiting", "waiting", "waiting", "failed"]
    assert callers[3].error == "full"


def test_callers_that_a_dial_will_serve_do_not_count_in_max_waiting() -> None:
    """Scenario 2: with ``max_waiting`` 0 a call for each free slot is accepted."""
    world = make(max_connections=3, max_waiting=0)
    callers = [world.arrive() for _ in range(4)]
    assert states(callers) == ["waiting", "waiting", "waiting", "failed"]


def test_a_waiter_that_a_coming_release_will_serve_does_not_count_in_max_waiting() -> None:
    """Scenario 2: from when the release is announced; a caller of another origin can wait then."""
    world = make(max_connections=1, max_waiting=1)
    (first,) = serve(world, "a")
    world.arrive("a")
    world.expect_release(first)
    assert world.arrive("b").state == "waiting"


def test_a_caller_that_finds_no_free_slot_is_counted_as_queued() -> None:
    world = make(max_connections=2)
    callers = serve(world, times=2)
    assert world.ledger.queued == 0, "each had its own dial"
    callers += [world.arrive("a"), world.arrive("b")]
    assert world.ledger.queued == 2
    world.release(callers[0])
    world.return_to_queue(callers[2])
    assert world.ledger.queued == 2, "a call is counted only once"


def test_a_caller_for_which_an_idle_connection_is_evicted_is_not_queued() -> None:
    world = make(max_connections=1)
    idle(world, "a")
    world.arrive("b")
    assert world.ledger.queued == 0


def test_a_caller_that_waits_for_a_backoff_is_not_counted_as_queued() -> None:
    world = make(max_connections=5)
    world.arrive()
    world.fail_dial()
    world.arrive()
    world.arrive()
    assert (world.ledger.waiting, world.ledger.queued) == (2, 0)


def test_a_refused_caller_is_not_counted_as_queued() -> None:
    world = make(max_connections=1, max_waiting=1)
    serve(world)
    assert states([world.arrive(), world.arrive()]) == ["waiting", "failed"]
    assert world.ledger.queued == 1


def test_a_cancelled_waiter_frees_its_place_in_the_queue() -> None:
    """Scenario 2: another caller may wait at once."""
    world = make(max_connections=1, max_waiting=1)
    (first,) = serve(world)
    world.cancel(world.arrive())
    second = world.arrive()
    world.release(first)
    assert second.state == "served"


def test_waiters_are_served_in_order_of_arrival() -> None:
    """Scenario 3: by new connections and by released ones."""
    world = make(max_connections=2)
    callers = [world.arrive() for _ in range(5)]
    world.connect()
    world.connect()
    assert states(callers) == ["served", "served", "waiting", "waiting", "waiting"]
    world.release(callers[1])
    world.release(callers[0])
    assert states(callers[2:]) == ["served", "served", "waiting"]


def test_a_caller_that_was_given_a_dead_connection_keeps_its_place() -> None:
    """Scenario 3: several such callers are served in order of their first arrival."""
    world = make(max_connections=3)
    first, second, third = serve(world, times=3)
    last = world.arrive()
    for caller in (first, second):
        world.kill(caller.connection)
    world.return_to_queue(second)
    world.return_to_queue(first)
    world.release(third)
    assert states([first, second, last]) == ["served", "waiting", "waiting"]
    world.connect()
    assert states([second, last]) == ["served", "waiting"]


def test_a_returning_caller_is_never_refused_because_the_queue_is_full() -> None:
    """Scenario 2: it was accepted when it first arrived."""
    world = make(max_connections=1, max_waiting=0)
    (caller,) = serve(world)
    world.kill(caller.connection)
    serve(world, "b")
    world.return_to_queue(caller)
    assert caller.state == "waiting"


def test_a_call_is_counted_once_however_often_it_returns_to_the_queue() -> None:
    """Scenario 27: after three dead connections it counts as one request, and none as reused."""
    world = make()
    idle(world, times=3)
    caller = world.arrive()
    while caller.state == "served":
        world.kill(caller.connection)
        world.return_to_queue(caller)
    assert (world.ledger.requests, world.ledger.connections.reused) == (4, 0)


def test_a_connection_that_a_cancelled_caller_did_not_use_is_not_reused() -> None:
    """Scenario 15: the caller was cancelled before it used the connection."""
    world = make()
    idle(world)
    world.cancel(world.arrive())
    assert world.ledger.connections.reused == 0


def test_the_dial_of_a_cancelled_waiter_goes_on() -> None:
    """Scenario 5: its connection serves another caller, or becomes idle."""
    world = make()
    world.cancel(world.arrive())
    world.connect()
    assert len(world.idle()) == 1


def test_a_connection_given_to_a_cancelled_caller_goes_to_the_next_waiter() -> None:
    """Scenario 15: it was not used, so its idle time goes on."""
    world = make(max_connections=1, keepalive_expiry=10.0)
    (first,) = serve(world)
    second, third = world.arrive(), world.arrive()
    world.release(first)
    world.pass_time(9.0)
    world.cancel(second)
    assert third.state == "served"
    world.cancel(third)
    world.tick(1.0)
    assert not world.idle(), "it has been idle for 10 s"


def test_each_waiter_causes_one_dial() -> None:
    """Scenario 9: not more, even if the limit allows more connections."""
    world = make(max_connections=10)
    for _ in range(3):
        world.arrive()
    assert len(world.dials) == 3


def test_a_connection_released_before_a_dial_ends_serves_its_waiter() -> None:
    """Scenario 9: the new connection becomes idle."""
    world = make()
    (first,) = serve(world)
    second = world.arrive()
    world.release(first)
    assert second.state == "served"
    world.connect()
    assert len(world.idle()) == 1
    assert world.arrive().state == "served"


def test_no_dial_begins_for_a_waiter_that_a_coming_release_will_serve() -> None:
    """Scenario 9: it will serve one waiter; a second one causes a dial."""
    world = make(max_waiting=0)
    (first,) = serve(world)
    world.expect_release(first)
    world.expect_release(first)
    second = world.arrive()
    assert (world.dials, second.state) == ([], "waiting")
    third = world.arrive()
    assert len(world.dials) == 1
    world.release(first)
    assert states([second, third]) == ["served", "waiting"]


@pytest.mark.parametrize("end", ["unclean", "dead", "drained", "retired"])
def test_a_dial_begins_if_the_expected_release_brings_no_connection(end: str) -> None:
    """Scenario 9: at once, for the waiter that expected the connection."""
    world = make()
    (first,) = serve(world)
    assert first.connection is not None
    world.expect_release(first)
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


def test_callers_share_one_dial_that_is_expected_to_carry_them_all() -> None:
    """Scenario 41: 100 streams are expected; the connection carries only 2, so another dial follows."""
    world = CheckedWorld(Limits(), expected_capacity=lambda _: 100)
    callers = [world.arrive() for _ in range(5)]
    assert len(world.dials) == 1
    world.connect(capacity=2)
    assert states(callers).count("served") == 2
    assert len(world.dials) == 2


def test_a_changed_capacity_holds_at_once() -> None:
    """Scenario 41: a lower one serves no more waiters, a higher one serves more."""
    world = make(max_connections=1)
    callers = [world.arrive() for _ in range(4)]
    world.connect(capacity=2)
    entry = callers[0].connection.entry
    world.do("resized", entry, 1)
    world.release(callers[0])
    assert states(callers[1:]) == ["served", "waiting", "waiting"]
    world.do("resized", entry, 3)
    assert states(callers[1:]) == ["served", "served", "served"]


def test_a_retired_connection_serves_no_waiter_when_its_capacity_grows() -> None:
    """Scenario 42: the server raises its limit after GOAWAY."""
    world = make(max_connections=1)
    callers = [world.arrive() for _ in range(2)]
    world.connect(capacity=1)
    world.retire(callers[0].connection)
    world.do("resized", callers[0].connection.entry, 9)
    assert callers[1].state == "waiting"
    world.release(callers[0])
    assert reasons(world) == ["goaway"]


def test_a_connection_with_capacity_0_causes_no_further_dials() -> None:
    """Scenario 46: it serves its waiters when the server raises the limit."""
    world = make()
    caller = world.arrive()
    connection = world.connect(capacity=0)
    assert not world.dials
    world.do("resized", connection.entry, 2)
    assert caller.state == "served"
    world.release(caller)
    world.do("resized", connection.entry, 0)
    assert states([world.arrive(), world.arrive()]) == ["waiting", "waiting"]
    assert not world.dials, "it is expected to carry 2 again"


def test_a_waiter_whose_blocked_connection_was_evicted_gets_another_dial() -> None:
    """Scenario 46: the connection had capacity 0 and was the longest idle."""
    world = make(max_connections=1)
    first = world.arrive("a")
    world.connect(capacity=0)
    second = world.arrive("b")
    world.finish_closing()
    world.connect()
    world.release(second)
    world.finish_closing()
    world.connect()
    assert first.state == "served"


def test_a_waiter_whose_blocked_connection_was_in_excess_gets_another_dial() -> None:
    """Scenario 46: more were idle than ``max_keepalive_connections``."""
    world = make(max_keepalive_connections=1)
    caller = world.arrive("a")
    world.connect(capacity=0)
    idle(world, "b")
    assert not world.dials
    world.tick(2.0)
    world.connect()
    assert caller.state == "served"


def test_a_blocked_connection_is_not_replaced_by_one_of_its_own_lane() -> None:
    """Scenario 46: at ``max_connections``, with more waiters than it will carry."""
    world = make(max_connections=1)
    for _ in range(3):
        world.arrive()
    world.connect(capacity=0)
    assert not reasons(world)


def test_a_lane_with_a_connection_evicts_no_blocked_one_that_has_waiters() -> None:
    """Scenario 46: the lane of the blocked connection would dial again at once."""
    world = make(max_connections=2)
    world.arrive("a")
    world.connect(capacity=0)
    served = world.arrive("b")
    world.connect()
    assert states([served, world.arrive("b")]) == ["served", "waiting"]
    assert not reasons(world)


def test_a_blocked_connection_without_waiters_is_evicted() -> None:
    """Scenario 46: its only waiter was cancelled."""
    world = make(max_connections=2)
    caller = world.arrive("a")
    world.connect(capacity=0)
    world.cancel(caller)
    world.arrive("b")
    world.connect()
    world.arrive("b")
    assert reasons(world) == ["evicted"]


def test_the_next_idle_connection_is_evicted_in_place_of_one_with_waiters() -> None:
    """Scenarios 9 and 46: the longest idle one is blocked and has waiters."""
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


def test_a_dial_has_the_connect_timeout_of_its_waiter() -> None:
    """Scenario 18: in seconds."""
    world = make()
    world.arrive(connect_timeout=1.5)
    assert [order.connect_timeout for order in world.orders if isinstance(order, Dial)] == [1.5]
