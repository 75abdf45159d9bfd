"""A call is cancelled at each of its awaits: it frees its slot, its socket and its tasks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from llm_pool.engine.loops import portal
from llm_pool.engine.pool import Pool
from llm_pool.exceptions import PoolClosed
from testbed import ScriptedServer
from testbed.behaviours import json_reply
from tests.fixtures.engine import request_to
from tests.scenarios.steppers import CANCEL_MOMENTS, after_turns, assert_serves_at_once, cancel, cancelled_at

PIECE = b"x" * 1024 * 1024


async def fetch(pool: Pool, server: ScriptedServer) -> None:
    await pool.fetch(request_to(server))


async def open_and_read(pool: Pool, server: ScriptedServer) -> None:
    exchange = await pool.open(request_to(server))
    try:
        while await exchange.host_loop.arun(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


async def upload(pool: Pool, server: ScriptedServer) -> None:
    exchange = await pool.open(request_to(server, None))
    arun = exchange.host_loop.arun
    try:
        for _ in range(4):
            await arun(exchange.write, PIECE)
        await arun(exchange.finish)
        await arun(exchange.head)
        while await arun(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


WAYS = [fetch, open_and_read, upload]


async def in_pieces(conn) -> None:
    """Read a request and send a response that takes several reads."""
    await conn.read_request()
    await conn.send_head(200, {"Transfer-Encoding": "chunked"})
    for _ in range(3):
        await asyncio.sleep(0.001)
        await conn.send_chunk(b"x" * 1000)
    await conn.end_chunks()


async def run_each_step(run, pool: Pool, server: ScriptedServer, *, enough: int) -> None:
    """Run ``run(step)`` for each step of the call, more than ``enough``, and check the pool after each."""
    step = 0
    got_there = True
    while got_there:
        with contextlib.suppress(asyncio.CancelledError):
            got_there, _ = await asyncio.create_task(run(step))
        await assert_serves_at_once(pool, server)
        step += 1
    assert step > enough


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh connection", "idle connection"])
@pytest.mark.parametrize("moment", CANCEL_MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_on_the_server_loop(
    server_loop, serve, engine_pool, way, moment, fresh
):
    """Scenarios 14 to 22: at each await of each kind of call in turn, in a pool of one connection."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0 if fresh else 30.0)
    await run_each_step(
        lambda step: cancelled_at(step, moment, way(pool, server)),
        pool,
        server,
        enough=2 if fresh else 1,
    )


@pytest.mark.parametrize("moment", CANCEL_MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_across_the_portal(serve, engine_pool, way, moment):
    """Scenarios 14 to 22: the caller's own awaits, each of which runs a coroutine on the portal."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1)
    await run_each_step(lambda step: cancelled_at(step, moment, way(pool, server)), pool, server, enough=1)


@pytest.mark.parametrize("moment", CANCEL_MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_inside_the_portal(serve, engine_pool, way, moment):
    """Scenarios 14 to 22: the awaits of the coroutines that run on the portal."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0)

    async def work(step: int) -> tuple[bool, None]:
        return await cancelled_at(step, moment, way(pool, server))

    async def run(step: int) -> tuple[bool, None]:
        try:
            return await portal.portal().arun(work, step)
        except PoolClosed:  # what ``arun`` raises when the cancellation did not come from its caller
            return True, None

    await run_each_step(run, pool, server, enough=2)


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_after_any_number_of_turns_of_the_portals_loop(serve, engine_pool, way):
    """Scenarios 14 to 22: the cancellation reaches the portal at every point of the coroutine there."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0)
    loop = asyncio.get_running_loop()
    cancelled = 0
    for turns in range(60):
        task = asyncio.create_task(way(pool, server))
        after_turns(portal.portal(), turns, lambda task=task: loop.call_soon_threadsafe(task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        await assert_serves_at_once(pool, server)
    assert cancelled > 10


async def test_cancelled_before_its_first_step(each_loop, serve, engine_pool):
    """Scenario 14: a task that never ran has not asked for a connection."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    await cancel(asyncio.create_task(pool.fetch(request_to(server))))
    assert pool.stats().requests == 0
    await assert_serves_at_once(pool, server)
