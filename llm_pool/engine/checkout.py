"""How one caller comes by a connection: at once, or by waiting its turn."""

from __future__ import annotations

import asyncio
import time
from math import inf

from .clerk import Clerk
from .connection import Connection
from .errors import PoolTimeout, TotalTimeout
from .homes.home import Home
from .ledger.state import Waiter
from .request import Marks, Request
from .stats.stats import describe

__all__ = ["checkout"]


async def checkout(
    clerk: Clerk,
    home: Home,
    request: Request,
    marks: Marks,
    *,
    total_at: float | None,
    returning: Waiter | None = None,
) -> tuple[Connection, Waiter]:
    """On ``home``: a live connection to the request's origin, by the ledger's rules.

    A call that is sent again comes as the ``returning`` waiter, and has its old place in the queue.
    Raises PoolTimeout and PoolFull, PoolClosed, TotalTimeout at ``total_at`` on the loop's clock, or the
    failure of the dial that was to serve the caller.
    """
    began = time.monotonic()
    patience = request.timeouts.pool
    pool_at = inf if patience is None else home.loop.time() + patience
    if returning is None:
        waiter = clerk.arrive(request.origin, home, request.timeouts.connect)
    else:
        waiter = returning
        clerk.return_to_queue(waiter)
    while True:
        if waiter.entry is None:
            await _wait(
                clerk, home, waiter, request, pool_at=pool_at, total_at=inf if total_at is None else total_at
            )
        entry = waiter.entry
        assert entry is not None
        connection: Connection | None = entry.connection
        if (
            connection is not None
            and not connection.closed
            and not entry.closing
            and (not connection.doubtful or await _stays(clerk, waiter, connection))
        ):
            break
        clerk.return_to_queue(waiter)
    marks.acquired = time.monotonic()
    marks.reused = waiter.reused
    clerk.tally.waited(marks.acquired - began)
    if not waiter.reused and connection.dial_seconds is not None:
        marks.dialing = min(connection.dial_seconds, marks.acquired - began)
    return connection, waiter


async def _wait(
    clerk: Clerk, home: Home, waiter: Waiter, request: Request, *, pool_at: float, total_at: float
) -> None:
    if waiter.error is not None:
        raise clerk.refusal(waiter.error)
    waiter.future = home.loop.create_future()
    time_out = _pool_timed_out if pool_at < total_at else _total_timed_out
    deadline = min(pool_at, total_at)
    timer = None if deadline == inf else home.loop.call_at(deadline, time_out, clerk, waiter, request)
    try:
        await waiter.future
    except BaseException as error:
        _leave(clerk, waiter, error)
        raise
    finally:
        if timer is not None:
            timer.cancel()


async def _stays(clerk: Clerk, waiter: Waiter, connection: Connection) -> bool:
    try:
        return await connection.stays()
    except BaseException as error:
        _leave(clerk, waiter, error)
        raise


def _leave(clerk: Clerk, waiter: Waiter, error: BaseException) -> None:
    clerk.enter(clerk.ledger.left, waiter)
    if isinstance(error, asyncio.CancelledError):
        clerk.tally.count("cancelled")


def _pool_timed_out(clerk: Clerk, waiter: Waiter, request: Request) -> None:
    if waiter.future.done():
        return
    clerk.tally.count("pool_timeouts")
    state, seconds = describe(clerk.stats()), request.timeouts.pool
    error = (
        f"pool {clerk.name!r}: no free connection to {request.origin} "
        f"within the pool timeout of {seconds:g} s ({state})"
    )
    waiter.future.set_exception(PoolTimeout(error))


def _total_timed_out(clerk: Clerk, waiter: Waiter, request: Request) -> None:
    if waiter.future.done():
        return
    state, seconds = describe(clerk.stats()), request.timeouts.total
    error = (
        f"pool {clerk.name!r}: the call to {request.origin} took longer than its {seconds} s, "
        f"and has no connection yet ({state})"
    )
    waiter.future.set_exception(TotalTimeout(error))
