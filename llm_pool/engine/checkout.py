"""Gets a connection for a call: at once, or after a wait in the queue."""

from __future__ import annotations

import asyncio
from math import inf

from llm_pool.exceptions import PoolTimeout, TotalTimeout

from .clock import monotonic
from .connection import Connection
from .coordinator import Coordinator
from .ledger.state import Waiter
from .loops.host_loop import HostLoop
from .request import Marks, Request
from .stats.stats import describe

__all__ = ["connection_at_once", "wait_for_connection"]


def connection_at_once(coordinator: Coordinator, waiter: Waiter, request: Request) -> Connection | None:
    """Return the connection that a new call got when it arrived.

    Returns None if the call must wait for a connection, or if the connection must be looked at first: see
    ``wait_for_connection``. Writes into the marks of ``request``.
    """
    entry = waiter.entry
    if entry is None or waiter.returning:
        return None
    connection: Connection | None = entry.connection
    if connection is None or connection.closed or entry.closing or _must_look(waiter, connection):
        return None
    _mark_acquired(coordinator, waiter, request.marks, asked=waiter.arrived_at, now=waiter.arrived_at)
    return connection


async def wait_for_connection(
    coordinator: Coordinator,
    host_loop: HostLoop,
    waiter: Waiter,
    request: Request,
    *,
    total_at: float | None,
) -> Connection:
    """Get a connection to the request's origin for ``waiter``, which has arrived.

    ``coordinator``  the coordinator of the pool
    ``host_loop``    the running loop, which hosts the connection
    ``request``      has the origin and the timeouts; this function writes into its marks
    ``total_at``     when the total timeout ends, in seconds of the loop's clock; None if there is none

    Raises PoolTimeout, PoolFull, PoolClosed, TotalTimeout, or the error of the dial that failed.
    """
    started = monotonic()
    pool_timeout = request.timeouts.pool
    pool_at = inf if pool_timeout is None else host_loop.loop.time() + pool_timeout
    while True:
        if waiter.entry is None:
            await _wait(
                coordinator,
                host_loop,
                waiter,
                request,
                pool_at=pool_at,
                total_at=inf if total_at is None else total_at,
            )
        entry = waiter.entry
        assert entry is not None
        connection: Connection | None = entry.connection
        if (
            connection is not None
            and not connection.closed
            and not entry.closing
            and (not _must_look(waiter, connection) or await _is_still_open(coordinator, waiter, connection))
        ):
            break
        is_closing = coordinator.ledger.closed or host_loop.closing
        if connection is not None and connection.closed and not waiter.reused and not is_closing:
            # Not dialed again: a server that closes each new connection would get one after another.
            error = connection.lost_before_use(request.origin)
            _cancel(coordinator, waiter, error)
            raise error
        coordinator.return_to_queue(waiter)
    _mark_acquired(coordinator, waiter, request.marks, asked=started, now=monotonic())
    return connection


def _mark_acquired(
    coordinator: Coordinator, waiter: Waiter, marks: Marks, *, asked: float, now: float
) -> None:
    marks.acquired = now
    marks.reused = waiter.reused
    coordinator.tally.waited(now - asked)
    if not waiter.reused and waiter.entry is not None:
        marks.dialing = min(waiter.entry.connection.dial_seconds or 0.0, now - asked)


async def _wait(
    coordinator: Coordinator,
    host_loop: HostLoop,
    waiter: Waiter,
    request: Request,
    *,
    pool_at: float,
    total_at: float,
) -> None:
    if waiter.error is not None:
        raise coordinator.error_for(waiter.error)
    waiter.future = host_loop.loop.create_future()
    on_timeout = _pool_timed_out if pool_at < total_at else _total_timed_out
    deadline = min(pool_at, total_at)
    timer = (
        None
        if deadline == inf
        else host_loop.loop.call_at(deadline, on_timeout, coordinator, waiter, request)
    )
    try:
        await waiter.future
    except BaseException as error:
        _cancel(coordinator, waiter, error)
        raise
    finally:
        if timer is not None:
            timer.cancel()


def _must_look(waiter: Waiter, connection: Connection) -> bool:
    """Return whether the connection's input must be read before the call can use it.

    On a new connection over TLS it can be the refusal of the client's certificate (see ``tls_alerts``). If
    the server has then reset the connection, a write would fail, and the refusal would remain unread.
    """
    if waiter.reused:
        return connection.unverified or connection.has_unread()
    return waiter.lane.origin.scheme == "https" and connection.has_unread()


async def _is_still_open(coordinator: Coordinator, waiter: Waiter, connection: Connection) -> bool:
    try:
        return await connection.is_still_open()
    except BaseException as error:
        _cancel(coordinator, waiter, error)
        raise


def _cancel(coordinator: Coordinator, waiter: Waiter, error: BaseException) -> None:
    coordinator.enter(coordinator.ledger.cancel, waiter)
    if isinstance(error, asyncio.CancelledError):
        coordinator.tally.count("cancelled")


def _pool_timed_out(coordinator: Coordinator, waiter: Waiter, request: Request) -> None:
    if waiter.future.done():
        return
    coordinator.tally.count("pool_timeouts")
    state, seconds = describe(coordinator.stats()), request.timeouts.pool
    error = (
        f"pool {coordinator.name!r}: no free connection to {request.origin} "
        f"within the pool timeout of {seconds:g} s ({state})"
    )
    waiter.future.set_exception(PoolTimeout(error))


def _total_timed_out(coordinator: Coordinator, waiter: Waiter, request: Request) -> None:
    if waiter.future.done():
        return
    state, seconds = describe(coordinator.stats()), request.timeouts.total
    error = (
        f"pool {coordinator.name!r}: the call to {request.origin} took longer than its total timeout of "
        f"{seconds} s, and still had no connection ({state})"
    )
    waiter.future.set_exception(TotalTimeout(error))
