"""Bounds over origins and homes, and whose turn it is to have a connection."""

from __future__ import annotations

from tests.engine.ledger_steps import idle, make, reasons, serve, states
from tests.engine.ledger_world import origin


def test_a_busy_origin_gives_a_connection_to_one_that_has_none() -> None:
    """Scenario 6: it comes in its turn, however many newcomers the busy one has."""
    world = make(max_connections=2)
    busy = serve(world, "a", times=2)
    queue = [world.arrive("a")]
    other = world.arrive("b")
    queue += [world.arrive("a") for _ in range(3)]
    world.release(busy[0])
    assert queue[0].state == "served", "it came first"
    world.release(busy[1])
    world.close_out()
    world.connect()
    assert other.state == "served"
    assert states(queue) == ["served", "waiting", "waiting", "waiting"]


def test_a_connection_moves_to_an_origin_below_its_share_from_one_above() -> None:
    """Scenario 6: one of four is not enough while another origin has three."""
    world = make(max_connections=4)
    busy = serve(world, "a", times=3)
    serve(world, "b")
    second_of_b = world.arrive("b")
    world.arrive("a")
    world.release(busy[0])
    world.close_out()
    world.connect()
    assert second_of_b.state == "served"


def test_nothing_is_taken_from_an_origin_at_its_share_while_a_slot_comes_free() -> None:
    """Scenario 6: what is closing already is enough for the one below its share."""
    world = make(max_connections=4)
    busy = serve(world, "a", times=3)
    serve(world, "b")
    world.arrive("b")
    newcomer = world.arrive("a")
    world.release(busy[0], reusable=False)
    world.release(busy[1])
    assert newcomer.state == "served"


def test_origins_at_their_share_do_not_take_connections_from_each_other() -> None:
    """Scenario 6: no redialing for ever where each has its half."""
    world = make(max_connections=2)
    callers = {"a": serve(world, "a")[0], "b": serve(world, "b")[0]}
    dialed = world.ledger.connections.opened
    for _ in range(5):
        for name in ("a", "b"):
            following = world.arrive(name)
            world.release(callers[name])
            callers[name] = following
    assert world.ledger.connections.opened == dialed
    assert not reasons(world)


def test_the_origin_with_none_is_found_behind_those_with_their_share() -> None:
    """Scenario 7: three origins, and the one that stands last in line has nothing."""
    world = make(max_connections=3)
    busy = [*serve(world, "a", times=2), *serve(world, "b")]
    for name in ("a", "b", "c"):
        world.arrive(name)
    world.arrive("a")
    for caller in busy[:2]:
        world.release(caller)
    world.close_out()
    assert [lane.origin for lane in world.dials] == [origin("c")]


def test_one_below_its_share_is_found_behind_one_that_has_its_share() -> None:
    """Scenario 6: who has what it is due stands back, however long it has waited."""
    world = make(max_connections=6)
    busy = serve(world, "a", times=3)
    serve(world, "b", times=2)
    serve(world, "c")
    for name in ("b", "c", "a", "a"):
        world.arrive(name)
    world.release(busy[0])
    world.release(busy[1])
    world.close_out()
    assert [lane.origin for lane in world.dials] == [origin("c")]


def test_a_multiplexed_connection_that_is_never_idle_starves_nobody() -> None:
    """Scenario 7: it takes no newcomers, and when its last call ends the other origin dials."""
    world = make(max_connections=1)
    first = world.arrive("a")
    world.connect(capacity=100)
    other = world.arrive("b")
    newcomer = world.arrive("a")
    assert newcomer.state == "waiting"
    world.release(first)
    world.close_out()
    world.connect()
    assert other.state == "served"


def test_one_promised_connection_is_enough() -> None:
    """Scenario 7: one caller of another origin retires one busy connection, not all."""
    world = make(max_connections=2)
    for _ in range(2):
        world.arrive("a")
        world.connect(capacity=1)
    for connection in world.connections:
        world.do("resized", connection.entry, 100)
    world.arrive("b")
    assert states([world.arrive("a") for _ in range(5)]) == ["served"] * 5


def test_the_longest_idle_connection_makes_room_for_another_origin() -> None:
    """Scenario 7: at the bound, and only there."""
    world = make(max_connections=3)
    oldest, newest = idle(world, "a", times=2)
    serve(world, "b", times=2)
    assert (oldest.state, newest.state) == ("closing", "open")


def test_an_idle_connection_in_one_loop_makes_room_in_the_other() -> None:
    """Scenario 1: the bound holds for the process, and the homes share it."""
    world = make(max_connections=1)
    idle(world, "a", "server")
    caller = world.arrive("a", "portal")
    assert not world.dials, "not before the slot is free"
    world.close_out()
    world.connect()
    assert caller.state == "served"


def test_room_made_for_one_who_left_meanwhile_is_left_free() -> None:
    """Scenario 16: nothing is dialed for nobody."""
    world = make(max_connections=1)
    idle(world, "a")
    world.leave(world.arrive("b"))
    world.close_out()
    assert world.held() == 0


def test_the_bound_of_a_host_holds_over_both_loops() -> None:
    """Scenario 6: two at most, wherever the callers are; another host is free to dial."""
    world = make(max_connections_per_host=2)
    callers = [world.arrive("a", host_loop) for host_loop in ("server", "portal", "server", "portal")]
    world.arrive("b")
    assert [lane.origin for lane in world.dials].count(origin("a")) == 2
    assert [lane.origin for lane in world.dials].count(origin("b")) == 1
    world.connect()
    world.release(callers[0])
    assert callers[2].state == "served"


def test_what_comes_free_under_the_bound_of_a_host_serves_the_other_loop() -> None:
    """Scenario 6: a caller held back by its host's bound is not forgotten when a connection there idles."""
    world = make(max_connections_per_host=1)
    (first,) = serve(world, "a", "server")
    other = world.arrive("a", "portal")
    world.release(first)
    world.close_out()
    world.connect()
    assert other.state == "served"


def test_a_busy_loop_gives_its_turn_to_the_other_under_the_bound_of_a_host() -> None:
    """Scenario 6: as between origins."""
    world = make(max_connections_per_host=1)
    (first,) = serve(world, "a", "server")
    other = world.arrive("a", "portal")
    world.arrive("a", "server")
    world.release(first)
    world.close_out()
    world.connect()
    assert other.state == "served"


def test_no_more_idle_connections_are_closed_than_the_other_host_may_dial() -> None:
    """Scenario 7: five wait, but two may dial: two connections make room."""
    world = make(max_connections=5, max_connections_per_host=2)
    for name in ("a", "c"):
        idle(world, name, times=2)
    idle(world, "d")
    for _ in range(5):
        world.arrive("b")
    assert len(reasons(world)) == 2


def test_prewarming_takes_nothing_from_others() -> None:
    """Scenario 13: neither at the pool's bound nor at the host's."""
    world = make(max_connections=4, max_connections_per_host=2, min_connections=2)
    for host_loop in ("server", "portal"):
        world.do("prewarm", world.ledger.lane(origin("a"), host_loop))
    idle(world, "b", times=2)
    while world.dials:
        world.connect()
    world.do("prewarm", world.ledger.lane(origin("c"), "portal"))
    assert not reasons(world)
    assert len(world.idle()) == 4
