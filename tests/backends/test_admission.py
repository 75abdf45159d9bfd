"""On every engine the pool decides which call gets a connection, and when."""

from __future__ import annotations

import asyncio
import gc

import httpx
import pytest

from llm_pool.exceptions import PoolFull, PoolTimeout
from tests.backends.servers import answer, by_path, gated
from tests.fixtures.callers import in_thread, queue_up, until


async def test_connections_never_exceed_the_bound(server_loop, serve, play, configure):
    """Scenario 1: 24 callers, on the server loop and the portal together; counted at the server."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 3})
    async with asyncio.TaskGroup() as calls:
        for _ in range(12):
            calls.create_task(pool.arequest("GET", "/x"))
            calls.create_task(in_thread(pool.request, "GET", "/x"))
        await server.await_requests(3)
        await until(lambda: pool.stats().waiting == 21)
        assert server.connections_open == 3
        server.gate("go").open()
    assert len(server.requests) == 24
    assert server.peak_open == 3


async def test_an_idle_connection_makes_room_in_the_other_loop(server_loop, server, configure):
    """Scenario 1: the bound holds over both event loops; each change of loop makes a new connection."""
    pool = configure(server, LIMITS={"max_connections": 1})
    for _ in range(3):
        assert (await pool.arequest("GET", "/x")).status_code == 200
        assert (await in_thread(pool.request, "GET", "/x")).status_code == 200
    assert server.peak_open == 1
    assert server.connections_accepted == 6


async def test_callers_are_served_in_the_order_they_came(serve, play, configure):
    """Scenario 3: the order in which the requests arrive at the server."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1})
    first = asyncio.create_task(pool.arequest("GET", "/first"))
    await server.await_requests(1)
    tasks = await queue_up(pool, *(pool.arequest("GET", f"/{number}") for number in range(6)))
    server.gate("go").open()
    await asyncio.gather(first, *tasks)
    assert [request.target for request in server.requests] == [
        "/v1/first",
        *[f"/v1/{number}" for number in range(6)],
    ]


async def test_a_pool_timeout_describes_the_pool(serve, play, configure):
    """Scenario 8: the message is the same on every engine, and the error is an ``httpx.PoolTimeout`` too."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1}, TIMEOUTS={"pool": 0.05})
    first = asyncio.create_task(pool.arequest("GET", "/x", timeout=5.0))  # includes the dial
    await server.await_requests(1)
    with pytest.raises(PoolTimeout, match=r"timeout of 0.05 s \(in use 1, idle 0, dialing 0") as caught:
        await pool.arequest("GET", "/x")
    assert isinstance(caught.value, httpx.PoolTimeout)
    server.gate("go").open()
    await first


async def test_a_call_beyond_the_full_queue_fails_at_once(serve, play, configure):
    """Scenario 2: ``max_waiting`` is 1."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1, "max_waiting": 1})
    first = asyncio.create_task(pool.arequest("GET", "/x"))
    await server.await_requests(1)
    waiting = await queue_up(pool, pool.arequest("GET", "/x"))
    with pytest.raises(PoolFull, match="waiting 1, max 1"):
        await pool.arequest("GET", "/x")
    server.gate("go").open()
    await asyncio.gather(first, *waiting)


async def test_the_bound_of_one_host_leaves_room_for_others(serve, play, configure):
    """Scenario 6: ``max_connections_per_host``; in aiohttp ``limit_per_host``."""
    server, other = serve(play(gated())), serve(play(answer))
    pool = configure(server, LIMITS={"max_connections": 4, "max_connections_per_host": 2})
    async with asyncio.TaskGroup() as calls:
        for _ in range(6):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(2)
        await until(lambda: pool.stats().waiting == 4)
        assert (await pool.aclient.get(f"{other.url}/x")).status_code == 200
        server.gate("go").open()
    assert server.peak_open == 2


async def test_a_call_cancelled_in_the_queue_takes_no_connection(serve, play, configure):
    """Scenario 14: the call that was queued behind it gets the connection."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1})
    first = asyncio.create_task(pool.arequest("GET", "/x"))
    await server.await_requests(1)
    [cancelled, next_call] = await queue_up(
        pool, pool.arequest("GET", "/cancelled"), pool.arequest("GET", "/next")
    )
    cancelled.cancel()
    await until(lambda: pool.stats().waiting == 1)
    server.gate("go").open()
    await asyncio.gather(first, next_call)
    assert [request.target for request in server.requests] == ["/v1/x", "/v1/next"]


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
async def test_a_cancelled_call_frees_its_connection(serve, play, configure, moment):
    """Scenarios 21 and 22: the next call is served at once, with ``max_connections`` 1."""

    async def long(exchange):
        if moment == "in the body":
            await exchange.head()
            await exchange.data(b"x")
        await exchange.hold()

    server = serve(play(by_path(long=long)))
    pool = configure(server, LIMITS={"max_connections": 1})
    began = asyncio.Event()

    async def read():
        async with pool.aclient.stream("GET", "/long") as response:
            async for _ in response.aiter_raw():
                began.set()

    task = asyncio.create_task(read())
    await server.await_requests(1)
    if moment == "in the body":
        await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert server.peak_open == 1


@pytest.mark.kinds(["httpcore-http1", "httpcore-http2", "aiohttp"])
async def test_a_call_cancelled_during_the_handshake_leaves_no_socket(serve, configure, certificates):
    """Scenario 19: the socket closes at once, not when it is garbage-collected.

    Not for the native engine: its dial continues, and the connection joins the pool.
    """

    async def listen(conn):
        await conn.read_some()
        server.mark("handshake started")
        await conn.hold()

    server = serve(listen)
    pool = configure(server.url.replace("http:", "https:"), TLS={"ca_file": certificates.ca_file})
    task = asyncio.create_task(pool.arequest("GET", "/x"))
    await server.await_mark("handshake started")
    gc.disable()
    try:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.await_until(lambda s: s.connections_open == 0)
    finally:
        gc.enable()
    assert pool.stats().connections == 0


async def test_calls_cancelled_at_any_moment_release_their_connections(serve, play, configure):
    """Scenario 25: each call is cancelled after 0 to 19 steps of the event loop."""
    server = serve(play(answer))
    pool = configure(server, LIMITS={"max_connections": 3})
    for turn in range(60):
        task = asyncio.create_task(pool.arequest("GET", "/x"))
        for _ in range(turn % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await pool.arequest("GET", "/x")).status_code == 200
    await until(lambda: pool.stats().in_use == 0)
    assert server.peak_open <= 3
