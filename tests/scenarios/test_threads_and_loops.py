"""One pool serves every thread and every event loop of a process."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from asgiref.sync import async_to_sync

from llm_pool.engine.loops import portal
from testbed.behaviours import echo, json_reply
from testbed.chat import chat_completion, chat_stream
from tests.fixtures.callers import in_thread, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import record_portal_starts


def test_a_hundred_runs_of_asyncio_share_one_connection(serve, engine_pool):
    """Scenario 53: ``asyncio.run`` 100 times, then ``async_to_sync`` 20 times; each makes a new loop."""
    server = serve(json_reply())
    pool = engine_pool()

    async def call() -> int:
        return (await pool.fetch(request_to(server))).status

    assert [asyncio.run(call()) for _ in range(100)] == [200] * 100
    assert [async_to_sync(call)() for _ in range(20)] == [200] * 20
    assert server.connections_accepted == 1


async def test_callers_of_every_kind_at_once(server_loop, serve, engine_pool):
    """Scenario 53: a server loop, fifty threads, threads that run loops; one pool, one bound, no error."""
    server = serve(echo)
    pool = engine_pool(max_connections=6)

    def thread() -> list[int]:
        return [pool.fetch_sync(request_to(server)).status for _ in range(5)]

    def thread_with_loops() -> list[int]:
        async def call() -> int:
            return (await pool.fetch(request_to(server))).status

        return [asyncio.run(call()) for _ in range(5)]

    async def task() -> list[int]:
        return [(await pool.fetch(request_to(server))).status for _ in range(5)]

    results = await asyncio.gather(
        *(in_thread(thread) for _ in range(50)),
        *(in_thread(thread_with_loops) for _ in range(10)),
        *(task() for _ in range(20)),
    )
    assert results == [[200] * 5] * 80
    assert len(server.requests) == 400
    assert server.peak_open <= 6
    assert pool.stats().requests == 400


def test_a_response_opened_on_one_loop_is_read_on_another(serve, engine_pool):
    """Scenario 53: or in a thread; its connection stays on the portal."""
    server = serve(echo)
    pool = engine_pool(max_connections=1)
    exchange = asyncio.run(pool.open(request_to(server)))

    async def read() -> bytes:
        return await exchange.host_loop.arun(exchange.read)

    assert b"POST" in asyncio.run(read())
    assert exchange.host_loop.run(exchange.read) == b""
    exchange = pool.open_sync(request_to(server))
    assert b"POST" in asyncio.run(read())
    assert asyncio.run(read()) == b""
    assert server.connections_accepted == 1


async def test_a_call_from_the_server_loop_makes_no_hop(server_loop, serve, engine_pool, monkeypatch):
    """Scenario 53: it is served on the server loop, and starts no portal."""
    portal.stop()
    gc.collect()  # closes streams of earlier tests now, which may start a portal
    starts = record_portal_starts(monkeypatch)
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    exchange = await pool.open(request_to(server))
    assert exchange.host_loop.loop is asyncio.get_running_loop()
    exchange.close_threadsafe()
    await until(lambda: pool.stats().in_use == 0)
    assert not [stack for thread, stack in starts if thread is threading.current_thread()]


@pytest.mark.parametrize("call", ["complete", "stream", "client"])
async def test_a_call_that_blocks_the_server_loop_is_warned_of(server_loop, serve, pool_to, call):
    """Scenario 53: it works, and the warning names the line that blocks the loop."""
    pool = pool_to(serve(chat_stream(["a"]) if call == "stream" else chat_completion("a")))
    calls = {
        "complete": lambda: pool.complete("Hello?"),
        "stream": lambda: list(pool.stream("Hello?")),
        "client": lambda: pool.client.post("chat/completions", json={}),
    }
    with pytest.warns(RuntimeWarning, match=r"test_threads_and_loops\.py:\d+ makes a call that blocks"):
        calls[call]()
    await asyncio.to_thread(calls[call])  # no warning: it blocks no loop
    portal.release_server_loop()
    calls[call]()  # no warning: it does not block the server loop
