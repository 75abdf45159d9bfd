"""How one caller comes by a connection: at once, or by waiting its turn."""

from __future__ import annotations

import asyncio
import time
from math import inf

from .clerk import Clerk
from .connection import Connection
from .errors import PoolTimeout
from .homes.home import Home
from .ledger.books import Waiter
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
    Raises PoolTimeout and PoolFull, PoolClosed, or the failure of the dial that was to serve the caller.
    """
    began = time.monotonic()
    patience = _patience(home, request, total_at)
    deadline = home.loop.time() + patience
    if returning is None:
        waiter = clerk.arrive(request.origin, home, request.timeouts.connect)
    else:
        waiter = returning
        clerk.return_to_queue(waiter)
    while True:
        if waiter.entry is None:
            await _wait(clerk, home, waiter, patience, deadline)
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
    if not waiter.reused:
        marks.dialing = min(connection.dial_seconds, marks.acquired - began)
    return connection, waiter


def _patience(home: Home, request: Request, total_at: float | None) -> float:
    patience = inf if request.timeouts.pool is None else request.timeouts.pool
    return patience if total_at is None else min(patience, total_at - home.loop.time())


async def _wait(clerk: Clerk, home: Home, waiter: Waiter, patience: float, deadline: float) -> None:
    if waiter.error is not None:
        raise clerk.refusal(waiter.error)
    clerk.tally.count("queued")
    waiter.future = home.loop.create_future()
    timer = None if deadline == inf else home.loop.call_at(deadline, _time_out, clerk, waiter, patience)
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


def _time_out(clerk: Clerk, waiter: Waiter, patience: float) -> None:
    if waiter.future.done():
        return
    clerk.tally.count("pool_timeouts")
    state = describe(clerk.stats())
    waiter.future.set_exception(
        PoolTimeout(
            f"pool {clerk.name!r}: no connection to {waiter.lane.origin} within {patience:g} s ({state})"
        )
    )
