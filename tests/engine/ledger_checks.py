"""Checks after every fact: the ledger agrees with the lists of the simulated world."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

from llm_pool.engine.ledger.dial_policy import EXCESS_LINGER
from tests.fixtures.internals import host_bounds_of

if TYPE_CHECKING:
    from llm_pool.engine.ledger.ledger import Ledger
    from llm_pool.engine.ledger.state import Lane
    from tests.engine.ledger_world import Connection, World

__all__ = ["check_after_tick", "check_nothing_left", "check_world"]


def check_world(world: World) -> None:
    check_counts(world)
    for lane in world.ledger.dial_policy.lanes():
        check_lane(world, lane)
        if lane.queue:
            assert not lane.available, "a waiter waits beside an available connection"
            check_connection_is_coming(world, lane)
    check_evictions(world)
    check_idle_timers(world)
    check_excess(world)


def check_counts(world: World) -> None:
    ledger, connections = world.ledger, world.ledger.connections
    live, idle = world.connections, connections.pool_bound.idle
    assert ledger.total == len(live) + len(world.dials)
    assert ledger.dial_policy.dialing == len(world.dials)
    assert ledger.waiting == sum(caller.state == "waiting" for caller in world.callers)
    assert connections.in_use == sum(bool(connection.callers) for connection in live)
    assert {entry.connection for entry in idle} == set(world.idle())
    all_closing = sum(connection.state == "closing" for connection in live)
    assert all_closing == sum(entry.closing for entry in connections.entries)
    assert ledger.draining == sum(connection.draining for connection in live)
    closing = [c for c in live if c.state == "closing" and not c.callers]
    assert ledger.total - connections.in_use - len(idle) - len(world.dials) == len(closing)
    assert 0 <= connections.reused <= ledger.requests
    assert 0 <= ledger.queued <= ledger.requests
    assert connections.opened == len(live) + sum(connections.closed_by_reason.values()) - all_closing
    assert ledger.dial_policy.shortage == sum(lane.shortage for lane in ledger.dial_policy.lanes())


def check_lane(world: World, lane: Lane) -> None:
    key = (lane.origin, lane.host_loop)
    connections = [connection for connection in world.connections if connection.key == key]
    states = Counter(connection.state for connection in connections)
    assert (lane.open, lane.closing) == (states["open"], states["closing"])
    assert lane.dialing == world.dials.count(lane)
    due = [connection for connection in connections if connection.entry.release_due]
    assert lane.releases_due == len(due)
    assert all(c.release_due and c.callers and not c.unusable and not c.entry.retire_reason for c in due)
    assert [w.number for w in lane.queue] == [caller.waiter.number for caller in world.waiting(key)]
    assert lane.shortage == max(0, len(lane.queue) - lane.streams_coming)
    assert min(lane.slots_soon, lane.slots_later, lane.blocked, lane.origin_bound.reserved) >= 0
    assert lane.origin_bound.held == world.held(lane.origin)
    assert {entry.connection for entry in lane.origin_bound.idle} == set(world.idle(host=lane.origin))


def check_connection_is_coming(world: World, lane: Lane) -> None:
    """Each waiter has a connection under way, unless a limit or a backoff forbids another dial."""
    ledger, limits = world.ledger, world.ledger.limits
    if len(lane.queue) <= lane.streams_coming:
        return
    if lane.backoff is not None and (lane.dialing or lane.slots_soon):
        return
    if lane.backoff is not None and (world.now < lane.backoff.retry_at or lane.dial_queue is None):
        latest = max(world.now, lane.backoff.retry_at)
        assert ledger.timers.next_at is not None and ledger.timers.next_at <= latest, "the backoff never ends"
        return
    per_host = limits.max_connections_per_host
    evictable = [c for c in world.idle() if is_evictable(c, lane)]
    if per_host is not None and lane.origin_bound.held + lane.origin_bound.reserved >= per_host:
        assert not [c for c in evictable if c.key[0] == lane.origin], "an idle connection is not evicted"
        return
    assert world.held() >= limits.max_connections, "a slot is free, and no dial is under way"
    assert not evictable, "an idle connection of another lane is not evicted"


def is_evictable(connection: Connection, lane: Lane) -> bool:
    """Whether an idle connection can be evicted for ``lane``."""
    if connection.key == (lane.origin, lane.host_loop):
        return False
    needed = not connection.entry.capacity and connection.entry.lane.queue
    return not needed or not lane.open_or_coming


def check_evictions(world: World) -> None:
    """Each slot that a lane expects belongs to a connection that was evicted for it."""
    lanes = world.ledger.dial_policy.lanes()
    evicted = [(c.entry, c.entry.evicted_for) for c in world.connections if c.entry.evicted_for is not None]
    assert sum(lane.slots_soon for lane in lanes) == sum(entry.evicted_idle for entry, _ in evicted)
    assert sum(lane.slots_later for lane in lanes) == sum(not entry.evicted_idle for entry, _ in evicted)
    origin_bounds = {id(lane.origin_bound): lane.origin_bound for lane in lanes}.values()
    of_other_origins = [
        entry
        for entry, lane in evicted
        if entry.evicted_idle and lane.origin_bound is not entry.lane.origin_bound
    ]
    assert sum(origin_bound.reserved for origin_bound in origin_bounds) == len(of_other_origins)


def check_idle_timers(world: World) -> None:
    times = [min(c.entry.expires_at, c.entry.retire_at) for c in world.idle()]
    if times and min(times) < inf:
        next_timer_at = world.ledger.timers.next_at
        assert next_timer_at is not None and next_timer_at <= max(min(times), world.now)


def check_excess(world: World) -> None:
    """Connections beyond ``max_keepalive_connections`` have a timer; there are none if the limit is 0."""
    if (close_at := excess_closes_at(world.ledger)) is not None:
        assert world.ledger.limits.max_keepalive_connections, "none is kept"
        next_timer_at = world.ledger.timers.next_at
        assert next_timer_at is not None and next_timer_at <= max(close_at, world.now)


def excess_closes_at(ledger: Ledger) -> float | None:
    """When the longest idle connection must close, if more than ``max_keepalive_connections`` are idle."""
    idle = ledger.connections.pool_bound.idle
    if len(idle) <= ledger.limits.max_keepalive_connections:
        return None
    longest_idle: Connection = next(iter(idle)).connection
    return longest_idle.last_used_at + EXCESS_LINGER


def check_after_tick(world: World) -> None:
    """After a tick no idle connection is unusable, past its expiry or lifetime, or in excess for too long."""
    limits = world.ledger.limits
    close_at = excess_closes_at(world.ledger)
    assert close_at is None or world.now < close_at
    for connection in world.idle():
        assert not connection.unusable, "it should have been closed"
        if limits.max_lifetime is not None:
            assert world.now < connection.opened_at + limits.max_lifetime
        lane = connection.entry.lane
        if limits.keepalive_expiry is not None and not (lane.prewarmed and limits.min_connections):
            assert world.now < connection.last_used_at + limits.keepalive_expiry


def check_nothing_left(world: World) -> None:
    """After the pool has closed, or has forgotten every origin, the ledger is empty."""
    ledger, connections, dial_policy = world.ledger, world.ledger.connections, world.ledger.dial_policy
    assert (ledger.total, ledger.waiting, connections.in_use, dial_policy.dialing) == (0, 0, 0, 0)
    assert (dial_policy.shortage, ledger.draining) == (0, 0)
    assert not connections.entries and not connections.pool_bound.idle
    assert not any(connections.pool_bound.dial_queues) and not connections.pool_bound.lanes
    assert not dial_policy.lanes() and not host_bounds_of(ledger), "a lane is leaked"
