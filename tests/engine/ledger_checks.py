"""What must hold in the ledger after every fact, by the world's own counts (DESIGN, section 5)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.fixtures.internals import hosts_of

if TYPE_CHECKING:
    from llm_pool.engine.ledger.state import Lane
    from tests.engine.ledger_world import Connection, World

__all__ = ["after_time", "all_is_gone", "books_are_right"]


def books_are_right(world: World) -> None:
    gauges_are_the_worlds(world)
    for lane in world.ledger.dial_policy.lanes():
        lane_is_the_worlds(world, lane)
        if lane.waiting:
            nothing_at_hand(lane)
            something_is_coming(world, lane)
    claims_are_backed(world)
    idle_will_be_looked_at(world)


def gauges_are_the_worlds(world: World) -> None:
    ledger, connections = world.ledger, world.ledger.connections
    live = world.connections
    assert ledger.total == len(live) + len(world.dials)
    assert ledger.dial_policy.dialing == len(world.dials)
    assert ledger.waiting == sum(caller.state == "waiting" for caller in world.callers)
    assert connections.in_use == sum(bool(connection.callers) for connection in live)
    assert {entry.connection for entry in connections.bound.idle} == set(world.idle())
    assert len(connections.bound.idle) <= ledger.limits.max_keepalive_connections
    all_closing = sum(connection.state == "closing" for connection in live)
    assert all_closing == sum(entry.closing for entry in connections.entries)
    assert ledger.outgoing == sum(connection.old for connection in live)
    closing = [c for c in live if c.state == "closing" and not c.callers]
    assert ledger.total - connections.in_use - len(connections.bound.idle) - len(world.dials) == len(closing)
    assert 0 <= connections.reused <= ledger.requests
    assert 0 <= ledger.queued <= ledger.requests
    assert connections.opened == len(live) + sum(connections.closed_by_reason.values()) - all_closing
    assert ledger.dial_policy.short == sum(lane.shortage for lane in ledger.dial_policy.lanes())


def lane_is_the_worlds(world: World, lane: Lane) -> None:
    key = (lane.origin, lane.host_loop)
    states = Counter(connection.state for connection in world.connections if connection.key == key)
    assert (lane.open, lane.closing) == (states["open"], states["closing"])
    assert lane.dialing == world.dials.count(lane)
    due = [connection for connection in world.connections if connection.key == key and connection.entry.due]
    assert lane.due == len(due)
    assert all(c.due and c.callers and not c.tainted and not c.entry.retired for c in due)
    assert [w.number for w in lane.waiting] == [caller.waiter.number for caller in world.waiting(key)]
    assert lane.shortage == max(0, len(lane.waiting) - lane.incoming)
    assert min(lane.claims, lane.promises, lane.shut, lane.host.reserved) >= 0
    assert lane.host.held == world.held(lane.origin)
    assert {entry.connection for entry in lane.host.idle} == set(world.idle(host=lane.origin))


def nothing_at_hand(lane: Lane) -> None:
    """Rule 5.2: while a connection that could serve a waiter is idle, no such waiter waits."""
    assert not lane.available


def something_is_coming(world: World, lane: Lane) -> None:
    """No lost wake-up: for each waiter a connection is on its way, or there is a reason why not."""
    ledger, limits = world.ledger, world.ledger.limits
    if len(lane.waiting) <= lane.incoming:
        return
    if lane.backoff is not None and (lane.dialing or lane.claims):
        return
    if lane.backoff is not None and (world.now < lane.backoff.retry_at or lane.line is None):
        latest = max(world.now, lane.backoff.retry_at)
        assert ledger.next_alarm is not None and ledger.next_alarm <= latest, "suspended for ever"
        return
    per_host = limits.max_connections_per_host
    expendable = [c for c in world.idle() if is_expendable(c, lane)]
    if per_host is not None and lane.host.held + lane.host.reserved >= per_host:
        assert not [c for c in expendable if c.key[0] == lane.origin], "an idle connection is not closed"
        return
    assert world.held() >= limits.max_connections, "there is room, and nobody dials"
    assert not expendable, "an idle connection of another lane is not closed"


def is_expendable(connection: Connection, lane: Lane) -> bool:
    """Whether an idle connection is closed for the sake of a lane that lacks one."""
    if connection.key == (lane.origin, lane.host_loop):
        return False
    awaited = not connection.entry.capacity and connection.entry.lane.waiting
    return not awaited or not lane.standing


def claims_are_backed(world: World) -> None:
    lanes = world.ledger.dial_policy.lanes()
    heirs = [c.entry for c in world.connections if c.entry.heir is not None]
    assert sum(lane.claims for lane in lanes) == sum(entry.claimed for entry in heirs)
    assert sum(lane.promises for lane in lanes) == sum(not entry.claimed for entry in heirs)
    hosts = {id(lane.host): lane.host for lane in lanes}.values()
    strangers = [e for e in heirs if e.claimed and e.heir is not None and e.heir.host is not e.lane.host]
    assert sum(host.reserved for host in hosts) == len(strangers)


def idle_will_be_looked_at(world: World) -> None:
    times = [min(c.entry.expires_at, c.entry.retire_at) for c in world.idle()]
    if times and min(times) < float("inf"):
        alarm = world.ledger.next_alarm
        assert alarm is not None and alarm <= max(min(times), world.now)


def after_time(world: World) -> None:
    """After a tick no connection idles beyond its time."""
    limits = world.ledger.limits
    for connection in world.idle():
        assert not connection.tainted, "it should have been closed"
        if limits.max_lifetime is not None:
            assert world.now < connection.opened_at + limits.max_lifetime
        lane = connection.entry.lane
        if limits.keepalive_expiry is not None and not (lane.prewarmed and limits.min_connections):
            assert world.now < connection.quiet_since + limits.keepalive_expiry


def all_is_gone(world: World) -> None:
    ledger = world.ledger
    assert (ledger.total, ledger.waiting, ledger.connections.in_use, ledger.dial_policy.dialing) == (
        0,
        0,
        0,
        0,
    )
    assert (ledger.dial_policy.short, ledger.outgoing) == (0, 0)
    assert not ledger.connections.entries and not ledger.connections.bound.idle
    assert not any(ledger.connections.bound.lines) and not ledger.connections.bound.lanes
    assert not ledger.dial_policy.lanes() and not hosts_of(ledger), "a lane is leaked"
