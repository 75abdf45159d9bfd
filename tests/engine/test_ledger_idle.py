"""The limits on the idle time and on the lifetime of a connection."""

from __future__ import annotations

import pytest

from llm_pool.engine.config import Limits
from tests.engine.ledger_steps import CheckedWorld, connect_all, idle, make, prewarm, reasons, serve, states
from tests.engine.ledger_world import origin
from tests.fixtures.internals import set_jitter


def test_the_connection_released_last_is_used_first() -> None:
    """Scenario 12: under low load the others expire."""
    world = make()
    _, newest = idle(world, times=2)
    assert world.arrive().connection is newest


def test_an_idle_connection_is_closed_after_keepalive_expiry() -> None:
    """Scenario 32: counted from its last use."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.tick(29.9)
    assert len(world.idle()) == 1
    assert world.ledger.timers.next_at == pytest.approx(world.now + 0.1)
    world.tick(0.1)
    assert reasons(world) == ["expired"]


def test_an_expired_connection_serves_no_caller_even_before_its_timer() -> None:
    """Scenario 32: the loop may call ``tick`` late."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.pass_time(30.0)
    assert world.arrive().state == "waiting"


@pytest.mark.parametrize(("hint", "lives"), [(5.0, 4.0), (1.0, 0.5), (100.0, 30.0)])
def test_a_connection_is_closed_some_time_before_the_servers_hint(hint: float, lives: float) -> None:
    """Scenario 32: by a second, or by half of a short hint, and never after ``keepalive_expiry``."""
    world = make(keepalive_expiry=30.0)
    (caller,) = serve(world)
    world.release(caller, hint=hint)
    world.tick(lives - 0.01)
    assert len(world.idle()) == 1
    world.tick(0.01)
    assert not world.idle()


def test_a_timer_set_before_the_last_use_does_not_close_the_connection() -> None:
    """Scenario 32: when it expires, it is set again, counted from that use."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.tick(20.0)
    world.release(world.arrive())
    world.tick(10.0)
    assert len(world.idle()) == 1
    world.tick(20.0)
    assert not world.idle()


def test_a_connection_past_its_lifetime_is_closed_between_calls_only() -> None:
    """Scenario 32: jitter shortens the lifetime, here by 5 %."""
    world = make(max_lifetime=100.0, keepalive_expiry=None)
    (caller,) = serve(world)
    world.tick(96.0)
    assert not reasons(world)
    world.release(caller)
    assert reasons(world) == ["lifetime"]
    idle(world)
    world.tick(94.9)
    assert len(world.idle()) == 1
    world.tick(0.1)
    assert not world.idle()


def test_lifetimes_of_connections_opened_together_differ() -> None:
    """Scenario 32: by up to a tenth; none is longer than ``max_lifetime``."""
    world = CheckedWorld(Limits(max_lifetime=100.0))
    shares = iter([0.0, 0.5, 1.0])
    set_jitter(world.ledger, lambda: next(shares))
    ages = [c.entry.retire_at - world.now for c in [caller.connection for caller in serve(world, times=3)]]
    assert ages == pytest.approx([100.0, 95.0, 90.0])


def test_the_longest_idle_connections_beyond_max_keepalive_are_closed_after_a_moment() -> None:
    """Scenario 12: two seconds after their last use, whatever their origin and host loop."""
    world = make(max_keepalive_connections=2)
    first = idle(world, "a", "server") + idle(world, "a", "portal")
    world.tick(1.0)
    second = idle(world, "b", times=2)
    world.tick(0.99)
    assert world.idle() == first + second
    world.tick(0.01)
    assert world.idle() == second
    assert reasons(world) == ["excess"] * 2
    world.tick(5.0)
    assert world.idle() == second


def test_the_connections_of_a_burst_serve_the_next_one() -> None:
    """Scenario 12: the calls of each burst begin together, a moment after the burst before."""
    world = make(max_keepalive_connections=1)
    for _ in range(5):
        for caller in serve(world, times=4):
            world.release(caller)
        world.tick(1.99)
    assert world.ledger.connections.opened == 4


def test_connections_that_smaller_bursts_do_not_use_are_closed() -> None:
    """Scenario 12: those of the largest burst do not stay open while there are smaller ones."""
    world = make(max_keepalive_connections=1)
    idle(world, times=4)
    for _ in range(3):
        world.tick(1.0)
        for caller in serve(world, times=2):
            world.release(caller)
    assert len(world.idle()) == 2
    world.tick(2.0)
    assert len(world.idle()) == 1
    assert reasons(world) == ["excess"] * 3


def test_with_max_keepalive_connections_0_no_connection_stays_open_after_its_call() -> None:
    """Scenario 12: not for a moment."""
    world = make(max_keepalive_connections=0)
    idle(world, times=2)
    assert reasons(world) == ["excess"] * 2


def test_a_connection_beyond_max_keepalive_expires_if_that_is_sooner() -> None:
    """Scenario 32: ``keepalive_expiry`` and the server's hint hold for it too."""
    world = make(max_keepalive_connections=1, keepalive_expiry=1.0)
    idle(world, times=2)
    world.tick(1.0)
    assert reasons(world) == ["expired"] * 2


def test_a_connection_beyond_max_keepalive_gives_its_slot_to_another_lane() -> None:
    """Scenario 7: at once, but only at ``max_connections``."""
    world = make(max_connections=4, max_keepalive_connections=1)
    oldest, *_ = idle(world, "a", times=3)
    first = serve(world, "b")
    assert (states(first), reasons(world)) == (["served"], [])
    second = world.arrive("b")
    assert (oldest.state, reasons(world)) == ("closing", ["evicted"])
    world.finish_closing()
    world.connect()
    assert second.state == "served"


def test_a_connection_is_prewarmed_when_fewer_are_idle_than_max_keepalive() -> None:
    """Scenario 13: when a call has ended, and its connection is idle while others are in use."""
    world = make(max_keepalive_connections=2, min_connections=1)
    idle(world, "a", times=2)
    prewarm(world, "b")
    first, _ = serve(world, "a", times=2)
    assert not world.dials
    world.release(first)
    assert [lane.origin for lane in world.dials] == [origin("b")]


def test_no_connection_is_prewarmed_while_others_are_beyond_max_keepalive() -> None:
    """Scenario 13: it would be closed, or make the pool close another one."""
    world = make(max_keepalive_connections=2, min_connections=1)
    idle(world, "a", times=3)
    prewarm(world, "b")
    world.tick(2.0)
    world.finish_closing()
    assert (world.dials, len(world.idle())) == ([], 2)


def test_an_unclean_connection_is_closed() -> None:
    """Scenario 34: the next waiter gets a new connection."""
    world = make(max_connections=1)
    (first,) = serve(world)
    second = world.arrive()
    world.release(first, reusable=False)
    world.finish_closing()
    world.connect()
    assert second.state == "served"
    assert second.waiter.reused is False


def test_a_prewarmed_connection_counts_as_reused_at_its_first_call() -> None:
    """Scenario 30: the server may have closed it while it was idle."""
    world = make(min_connections=1)
    prewarm(world)
    world.connect()
    assert world.arrive().waiter.reused is True


def test_after_a_burst_min_connections_stay_open() -> None:
    """Scenario 12: even after ``keepalive_expiry``; after a server's hint they are replaced."""
    world = make(min_connections=2, keepalive_expiry=30.0)
    prewarm(world)
    idle(world, times=5)
    for _ in range(5):
        world.tick(30.0)
        world.finish_closing()
    assert len(world.idle()) == 2
    assert world.arrive().state == "served"
    world.release(next(c for c in world.callers), hint=5.0)
    world.tick(4.0)
    world.finish_closing()
    assert len(world.dials) == 1


def test_with_keepalive_expiry_0_no_connection_is_prewarmed() -> None:
    """Scenario 13: otherwise it would expire and be dialed again, in an endless loop."""
    world = make(min_connections=1, keepalive_expiry=0.0)
    prewarm(world)
    assert not world.dials


def test_prewarming_of_two_lanes_stops_at_max_keepalive_connections() -> None:
    """Scenario 13: otherwise they would dial and close in turn, in an endless loop."""
    world = make(min_connections=3, max_keepalive_connections=4)
    for name in ("a", "b"):
        prewarm(world, name)
        connect_all(world)
    assert len(world.idle()) == 4
    assert not reasons(world)
