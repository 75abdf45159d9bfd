"""How long a connection may idle, live, and be kept."""

from __future__ import annotations

import pytest

from llm_pool.engine.config import Limits
from tests.engine.ledger_steps import CheckedWorld, idle, make, reasons, serve
from tests.engine.ledger_world import origin
from tests.fixtures.internals import set_jitter


def test_last_in_first_out() -> None:
    """Scenario 12: the load that is left stays on few connections."""
    world = make()
    _, newest = idle(world, times=2)
    assert world.arrive().connection is newest


def test_an_idle_connection_expires() -> None:
    """Scenario 32: at ``keepalive_expiry``, counted from its last use."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.tick(29.9)
    assert len(world.idle()) == 1
    assert world.ledger.next_alarm == pytest.approx(world.now + 0.1)
    world.tick(0.1)
    assert reasons(world) == ["expired"]


def test_an_expired_connection_serves_nobody_even_before_the_alarm() -> None:
    """Scenario 32: the loop was late."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.wait(30.0)
    assert world.arrive().state == "waiting"


@pytest.mark.parametrize(("hint", "lives"), [(5.0, 4.0), (1.0, 0.5), (100.0, 30.0)])
def test_the_servers_hint_is_kept_with_a_margin(hint: float, lives: float) -> None:
    """Scenario 32: a second, or half of what there is; and never longer than our own expiry."""
    world = make(keepalive_expiry=30.0)
    (caller,) = serve(world)
    world.release(caller, hint=hint)
    world.tick(lives - 0.01)
    assert len(world.idle()) == 1
    world.tick(0.01)
    assert not world.idle()


def test_an_early_alarm_outlasts_a_use_in_between() -> None:
    """Scenario 32: it rings, finds the connection in use since, and is set anew."""
    world = make(keepalive_expiry=30.0)
    idle(world)
    world.tick(20.0)
    world.release(world.arrive())
    world.tick(10.0)
    assert len(world.idle()) == 1
    world.tick(20.0)
    assert not world.idle()


def test_a_lifetime_ends_between_calls_and_never_within_one() -> None:
    """Scenario 32: with jitter, here 5 %."""
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
    """Scenario 32: by up to a tenth, and none is longer than the limit."""
    world = CheckedWorld(Limits(max_lifetime=100.0))
    shares = iter([0.0, 0.5, 1.0])
    set_jitter(world.ledger, lambda: next(shares))
    ages = [c.entry.retire_at - world.now for c in [caller.connection for caller in serve(world, times=3)]]
    assert ages == pytest.approx([100.0, 95.0, 90.0])


def test_no_more_connections_idle_than_may_be_kept() -> None:
    """Scenario 12: the longest idle goes."""
    world = make(max_keepalive_connections=2)
    idle(world, times=3)
    assert len(world.idle()) == 2
    assert reasons(world) == ["excess"]


def test_an_unclean_connection_is_closed() -> None:
    """Scenario 34: its caller's successor gets a new one."""
    world = make(max_connections=1)
    (first,) = serve(world)
    second = world.arrive()
    world.release(first, reusable=False)
    world.close_out()
    world.connect()
    assert second.state == "served"
    assert second.waiter.reused is False


def test_a_connection_that_has_idled_counts_as_reused_though_it_never_served() -> None:
    """Scenario 30: the server may have closed it meanwhile, so it is no fresh one."""
    world = make(min_connections=1)
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    world.connect()
    assert world.arrive().waiter.reused is True


def test_after_a_burst_the_minimum_stays() -> None:
    """Scenario 12: it outlives the expiry; a server's hint is believed, and the connection replaced."""
    world = make(min_connections=2, keepalive_expiry=30.0)
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    idle(world, times=5)
    for _ in range(5):
        world.tick(30.0)
        world.close_out()
    assert len(world.idle()) == 2
    assert world.arrive().state == "served"
    world.release(next(c for c in world.callers), hint=5.0)
    world.tick(4.0)
    world.close_out()
    assert len(world.dials) == 1


def test_where_nothing_may_idle_nothing_is_prewarmed() -> None:
    """Scenario 13: it would be looked at again and again, for ever."""
    world = make(min_connections=1, keepalive_expiry=0.0)
    world.do("prewarm", world.ledger.lane(origin("a"), "portal"))
    assert not world.dials


def test_two_lanes_that_prewarm_more_than_may_idle_do_not_drive_each_other_out() -> None:
    """Scenario 13: dial, close, dial, close ... for ever."""
    world = make(min_connections=3, max_keepalive_connections=4)
    for name in ("a", "b"):
        world.do("prewarm", world.ledger.lane(origin(name), "portal"))
        while world.dials:
            world.connect()
    assert len(world.idle()) == 4
    assert not reasons(world)
