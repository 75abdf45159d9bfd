"""Limits over origins and host loops, and fair shares of connections between lanes."""

from __future__ import annotations

from tests.engine.ledger_steps import connect_all, idle, make, prewarm, reasons, serve, states
from tests.engine.ledger_world import origin


def test_an_origin_without_connections_gets_one_of_a_busy_origin() -> None:
    """Scenario 6: in order of arrival, even if the busy origin has many more callers."""
    world = make(max_connections=2)
    busy = serve(world, "a", times=2)
    queue = [world.arrive("a")]
    other = world.arrive("b")
    queue += [world.arrive("a") for _ in range(3)]
    world.release(busy[0])
    assert queue[0].state == "served", "it arrived first"
    world.release(busy[1])
    world.finish_closing()
    world.connect()
    assert other.state == "served"
    assert states(queue) == ["served", "waiting", "waiting", "waiting"]


def test_an_origin_below_its_share_gets_a_connection_of_one_above() -> None:
    """Scenario 6: one has three connections, the other has one, and the share is two."""
    world = make(max_connections=4)
    busy = serve(world, "a", times=3)
    serve(world, "b")
    second_of_b = world.arrive("b")
    world.arrive("a")
    world.release(busy[0])
    world.finish_closing()
    world.connect()
    assert second_of_b.state == "served"


def test_an_origin_at_its_share_keeps_its_connection_while_one_closes() -> None:
    """Scenario 6: the slot of the closing connection is enough for the origin below its share."""
    world = make(max_connections=4)
    busy = serve(world, "a", times=3)
    serve(world, "b")
    world.arrive("b")
    newcomer = world.arrive("a")
    world.release(busy[0], reusable=False)
    world.release(busy[1])
    assert newcomer.state == "served"


def test_origins_at_their_share_do_not_take_connections_from_each_other() -> None:
    """Scenario 6: each keeps its half, and no connection is closed."""
    world = make(max_connections=2)
    callers = {"a": serve(world, "a")[0], "b": serve(world, "b")[0]}
    for _ in range(5):
        for name in ("a", "b"):
            following = world.arrive(name)
            world.release(callers[name])
            callers[name] = following
    assert not reasons(world)


def test_an_origin_without_connections_is_found_behind_others() -> None:
    """Scenario 7: of three origins with waiters, only the last to arrive has no connection."""
    world = make(max_connections=3)
    busy = [*serve(world, "a", times=2), *serve(world, "b")]
    for name in ("a", "b", "c"):
        world.arrive(name)
    world.arrive("a")
    for caller in busy[:2]:
        world.release(caller)
    world.finish_closing()
    assert [lane.origin for lane in world.dials] == [origin("c")]


def test_an_origin_below_its_share_is_found_behind_one_at_its_share() -> None:
    """Scenario 6: the origin at its share gets no more, even if it has waited longer."""
    world = make(max_connections=6)
    busy = serve(world, "a", times=3)
    serve(world, "b", times=2)
    serve(world, "c")
    for name in ("b", "c", "a", "a"):
        world.arrive(name)
    world.release(busy[0])
    world.release(busy[1])
    world.finish_closing()
    assert [lane.origin for lane in world.dials] == [origin("c")]


def test_a_multiplexed_connection_that_is_never_idle_starves_no_origin() -> None:
    """Scenario 7: it accepts no new calls, and when its last call ends the other origin dials."""
    world = make(max_connections=1)
    first = world.arrive("a")
    world.connect(capacity=100)
    other = world.arrive("b")
    newcomer = world.arrive("a")
    assert newcomer.state == "waiting"
    world.release(first)
    world.finish_closing()
    world.connect()
    assert other.state == "served"


def test_one_waiter_of_another_origin_retires_one_connection_in_use() -> None:
    """Scenario 7: the other connection still accepts calls."""
    world = make(max_connections=2)
    for _ in range(2):
        world.arrive("a")
        world.connect(capacity=1)
    for connection in world.connections:
        world.do("resized", connection.entry, 100)
    world.arrive("b")
    assert states([world.arrive("a") for _ in range(5)]) == ["served"] * 5


def test_the_longest_idle_connection_is_evicted_for_another_origin() -> None:
    """Scenario 7: only at ``max_connections``."""
    world = make(max_connections=3)
    oldest, newest = idle(world, "a", times=2)
    serve(world, "b", times=2)
    assert (oldest.state, newest.state) == ("closing", "open")


def test_an_idle_connection_on_one_loop_is_evicted_for_the_other_loop() -> None:
    """Scenario 1: ``max_connections`` holds for both loops together."""
    world = make(max_connections=1)
    idle(world, "a", "server")
    caller = world.arrive("a", "portal")
    assert not world.dials, "no dial before the slot is free"
    world.finish_closing()
    world.connect()
    assert caller.state == "served"


def test_a_slot_freed_for_a_cancelled_waiter_stays_free() -> None:
    """Scenario 16: no dial without a waiter."""
    world = make(max_connections=1)
    idle(world, "a")
    world.cancel(world.arrive("b"))
    world.finish_closing()
    assert world.held() == 0


def test_the_limit_of_a_host_holds_over_both_loops() -> None:
    """Scenario 6: it gets two connections, and another host can still dial."""
    world = make(max_connections_per_host=2)
    callers = [world.arrive("a", host_loop) for host_loop in ("server", "portal", "server", "portal")]
    world.arrive("b")
    assert [lane.origin for lane in world.dials].count(origin("a")) == 2
    assert [lane.origin for lane in world.dials].count(origin("b")) == 1
    world.connect()
    world.release(callers[0])
    assert callers[2].state == "served"


def test_at_its_hosts_limit_a_connection_is_evicted_for_the_other_loop() -> None:
    """Scenario 6: when it is released, the waiter on the other loop gets its slot."""
    world = make(max_connections_per_host=1)
    (first,) = serve(world, "a", "server")
    other = world.arrive("a", "portal")
    world.release(first)
    world.finish_closing()
    world.connect()
    assert other.state == "served"


def test_a_busy_loop_yields_to_the_other_loop_at_the_limit_of_a_host() -> None:
    """Scenario 6: the waiter on the other loop arrived first, so it gets the slot."""
    world = make(max_connections_per_host=1)
    (first,) = serve(world, "a", "server")
    other = world.arrive("a", "portal")
    world.arrive("a", "server")
    world.release(first)
    world.finish_closing()
    world.connect()
    assert other.state == "served"


def test_no_more_idle_connections_are_evicted_than_the_other_host_may_dial() -> None:
    """Scenario 7: of five waiters two may dial, so two connections are evicted."""
    world = make(max_connections=5, max_connections_per_host=2)
    for name in ("a", "c"):
        idle(world, name, times=2)
    idle(world, "d")
    for _ in range(5):
        world.arrive("b")
    assert len(reasons(world)) == 2


def test_prewarming_evicts_no_connection() -> None:
    """Scenario 13: neither at the pool's limit nor at the host's."""
    world = make(max_connections=4, max_connections_per_host=2, min_connections=2)
    for host_loop in ("server", "portal"):
        prewarm(world, "a", host_loop)
    idle(world, "b", times=2)
    connect_all(world)
    prewarm(world, "c")
    assert not reasons(world)
    assert len(world.idle()) == 4
