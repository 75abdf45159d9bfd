"""A pool that is drained or closed: calls in progress finish or fail, and every connection is closed."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_pool.engine.config import Origin
from llm_pool.engine.loops import portal
from llm_pool.exceptions import PoolClosed
from testbed import ScriptedServer
from testbed.behaviours import json_reply, stall
from tests.fixtures.callers import AT_ONCE, gated, in_thread, occupy, queue_up, trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import dials_of, ledger_of

# Draining.


async def test_a_drain_lets_calls_finish_and_replaces_connections_as_they_come_back(
    each_loop, serve, engine_pool
):
    """Scenario 51: two are in use, one is idle; the idle one closes at once, the others after their calls."""
    server = serve(lambda conn: gated(f"go {conn.number}")(conn))
    pool = engine_pool(max_connections=5)
    warm = await occupy(pool, *[server] * 3)
    for number in range(3):
        server.gate(f"go {number}").admit()
    await asyncio.gather(*warm)
    in_use = await occupy(pool, server, server)
    drain = asyncio.create_task(pool.adrain())
    await server.await_until(lambda s: s.connections_open == 2)  # the idle one is gone
    newcomer = await occupy(pool, server)
    assert server.requests[-1].connection == 3
    assert not drain.done()
    for number in range(3):
        server.gate(f"go {number}").open()
    assert [whole.status for whole in await asyncio.gather(*in_use)] == [200, 200]
    assert await drain is True
    await server.await_until(lambda s: s.connections_open == 1)
    server.gate("go 3").open()
    await asyncio.gather(*newcomer)
    await pool.fetch(request_to(server))
    assert server.connections_accepted == 4


async def test_waiters_of_a_drained_pool_are_served_by_new_connections(each_loop, serve, engine_pool):
    """Scenario 51: at the bound, the connection in use is closed after its call, then another is dialed."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    calls = await occupy(pool, server)
    calls += await queue_up(pool, *(pool.fetch(request_to(server)) for _ in range(3)))
    drain = asyncio.create_task(pool.adrain())
    await until(lambda: ledger_of(pool).draining == 1)
    server.gate("go").open()
    await asyncio.gather(*calls)
    assert await drain is True
    assert [request.connection for request in server.requests] == [0, 1, 1, 1]
    assert server.peak_open == 1


async def test_a_drain_that_takes_too_long_says_so(each_loop, serve, engine_pool):
    """Scenario 51: it returns False after its timeout, in a task and in a thread; calls go on."""
    server = serve(gated())
    pool = engine_pool()
    in_use = await occupy(pool, server)
    assert await pool.adrain(0.05) is False
    assert await in_thread(pool.drain, 0.05) is False
    server.gate("go").open()
    assert [whole.status for whole in await asyncio.gather(*in_use)] == [200]
    assert await pool.adrain(AT_ONCE) is True


async def test_a_drained_pool_is_prewarmed_again(each_loop, serve, engine_pool):
    """Scenario 51: the minimum holds for the new connections too."""
    server = serve(json_reply())
    pool = engine_pool(min_connections=2)
    await pool.prewarm(Origin(*server.origin))
    await until(lambda: pool.stats().idle == 2)
    assert await pool.adrain() is True
    await server.await_until(lambda s: s.connections_accepted == 4 and s.connections_open == 2)
    await until(lambda: pool.stats().idle == 2)


# Closing.


async def test_close_fails_calls_that_wait_dial_and_read(server_loop, serve, engine_pool, certificates):
    """Scenario 51: on both loops at once; each caller gets PoolClosed, and nothing hangs."""
    server: ScriptedServer
    server = serve(stall)
    slow = serve(json_reply(), tls=certificates.good, before_handshake=lambda: slow.gate("tls").passage())
    pool = engine_pool(max_connections=4, tls=trusting(certificates), http2=False)
    calls = await occupy(pool, server)
    calls.append(asyncio.create_task(in_thread(pool.fetch_sync, request_to(server))))
    await server.await_requests(2)
    calls.append(asyncio.create_task(pool.fetch(request_to(slow, connect=30.0))))
    calls.append(asyncio.create_task(in_thread(pool.fetch_sync, request_to(slow, connect=30.0))))
    await slow.gate("tls").await_reached(2)
    calls += await queue_up(
        pool, pool.fetch(request_to(server)), in_thread(pool.fetch_sync, request_to(server))
    )
    began = time.monotonic()
    await pool.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [PoolClosed] * 6
    assert all("closed" in str(result) for result in results)
    assert time.monotonic() - began < 2 * AT_ONCE
    assert pool.stats().connections == pool.stats().waiting == 0
    await server.await_until(lambda s: s.connections_open == 0)
    slow.gate("tls").open()
    await slow.await_until(lambda s: s.connections_open == 0)


async def test_close_from_a_thread_ends_the_connections_of_both_loops(server_loop, serve, engine_pool):
    """Scenario 51: the thread waits until every socket is closed, the server loop's too."""
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    await in_thread(pool.fetch_sync, request_to(server))
    assert pool.stats().idle == 2

    def close() -> int:
        pool.close()
        return ledger_of(pool).total

    # In a thread: the loop must run meanwhile, to close its connection.
    done = asyncio.get_running_loop().run_in_executor(None, close)
    assert await done == 0
    await server.await_until(lambda s: s.connections_open == 0)


async def test_close_on_the_server_loop_does_not_hold_it_up(server_loop, serve, engine_pool):
    """Scenario 51: the sync ``close`` does not wait there, since only this loop can close its connections."""
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < AT_ONCE  # a wait would take two seconds, twice
    await server.await_until(lambda s: s.connections_open == 0)


async def test_a_closed_pool_refuses(each_loop, serve, engine_pool):
    """Scenario 51: calls of tasks and threads fail at once; closing it again changes nothing."""
    server = serve(json_reply())
    pool = engine_pool("gpt")
    await pool.fetch(request_to(server))
    await pool.aclose()
    await pool.aclose()
    await in_thread(pool.close)
    with pytest.raises(PoolClosed, match="'gpt' is closed"):
        await pool.fetch(request_to(server))
    with pytest.raises(PoolClosed, match="'gpt' is closed"):
        await in_thread(pool.fetch_sync, request_to(server))
    assert server.connections_accepted == 1


async def test_a_dial_ordered_in_the_moment_of_the_close_is_called_off(
    server_loop, serve, engine_pool, certificates
):
    """Scenario 51: the pool is closed while the order to dial waits for the portal, which is busy."""
    busy = serve(gated())
    slow: ScriptedServer
    slow = serve(json_reply(), tls=certificates.good, before_handshake=lambda: slow.gate("tls").passage())
    pool = engine_pool(max_connections=1, tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, busy)
    thread = await queue_up(pool, in_thread(pool.fetch_sync, request_to(slow, connect=30.0)))
    portal.portal().post(busy.gate("portal").block)
    await busy.gate("portal").await_reached()
    busy.gate("go").open()
    await asyncio.gather(*in_use)
    await until(lambda: pool.stats().dialing == 1)
    began = time.monotonic()
    closing = asyncio.create_task(pool.aclose())
    await until(lambda: pool.closed)
    busy.gate("portal").open()
    await closing
    assert time.monotonic() - began < 1.5  # ``aclose`` would wait twice two seconds for a dial that goes on
    assert pool.stats().connections == 0
    with pytest.raises(PoolClosed):
        await thread[0]
    slow.gate("tls").open()


async def test_a_call_served_in_the_tick_of_the_close_gets_pool_closed(server_loop, serve, engine_pool):
    """Scenario 51: its connection is new and already closing, and nothing was sent."""
    server = serve(json_reply())
    pool = engine_pool()
    call = asyncio.create_task(pool.fetch(request_to(server)))
    await asyncio.sleep(0)  # its dial is ordered
    (dial,) = dials_of(pool)
    dial.add_done_callback(lambda _: pool.close())  # called after the pool's own, which serves the call
    with pytest.raises(PoolClosed):
        await call
    assert server.requests == []
