"""Streams closed by another task or thread before their response has begun."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.engine.config import Limits
from llm_pool.engine.loops.portal import host_loop_of_caller
from llm_pool.engine.scope import CancelScope
from llm_pool.exceptions import ConnectFailed, PoolClosed
from testbed.behaviours import hold, raw, steps
from testbed.chat import chat_stream
from tests.fixtures.callers import close_in_threads, read_text
from tests.fixtures.engine import until_pool

silent = steps(raw(), hold)  # reads the request and does not respond


@pytest.fixture(params=["straight", "through httpx"])
def through_httpx(request):
    """Whether the call goes directly to the engine, or through httpx because a hook is installed there."""
    return request.param == "through httpx"


def start_reading(pool, kind, through_httpx):
    """Return a stream, and the task that reads it."""
    if through_httpx:
        pool.client.event_hooks = {"request": [lambda _: None]}
        pool.aclient.event_hooks = {"request": [_pass]}
    stream = pool.stream("Hello?") if kind == "thread" else pool.astream("Hello?")
    return stream, asyncio.ensure_future(read_text(stream))


async def _pass(_):
    pass


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_it_ends_for_its_reader_and_at_the_server(serve, pool_to, each_loop, kind, through_httpx):
    """Scenario 35: the iteration ends at once, without an error, even though the server has not responded."""
    server = serve(silent)
    pool = pool_to(server, read=30.0)
    stream, reader = start_reading(pool, kind, through_httpx)
    await server.await_until(lambda s: s.requests)
    close_in_threads(stream)
    async with asyncio.timeout(5):
        assert await reader == ""
    assert stream.completion is None
    await server.await_until(lambda s: s.connections_open == 0)
    await until_pool(pool.engine, lambda: pool.stats().connections == 0)


async def test_another_task_may_close_it(serve, pool_to, each_loop):
    """Scenario 35: by ``aclose``."""
    server = serve(silent)
    pool = pool_to(server, read=30.0)
    stream, reader = start_reading(pool, "task", through_httpx=False)
    await server.await_until(lambda s: s.requests)
    await stream.aclose()
    async with asyncio.timeout(5):
        assert await reader == ""
    await server.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_in_the_queue_it_gives_up_its_place(serve, pool_to, each_loop, kind, through_httpx):
    """Scenarios 5 and 35: it takes no connection, and the next call in the queue moves up."""
    server = serve(chat_stream(["a"], pace="token"))
    pool = pool_to(server, read=30.0, limits=Limits(max_connections=1, max_keepalive_connections=1))
    _, first = start_reading(pool, "task", through_httpx=False)
    await server.await_until(lambda s: s.requests)
    stream, second = start_reading(pool, kind, through_httpx)
    await until_pool(pool.engine, lambda: pool.stats().waiting == 1)
    _, third = start_reading(pool, "task", through_httpx=False)
    await until_pool(pool.engine, lambda: pool.stats().waiting == 2)
    stream.close()
    async with asyncio.timeout(5):
        assert await second == ""
    await until_pool(pool.engine, lambda: pool.stats().waiting == 1)
    server.gate("token").open()
    assert (await first, await third) == ("a", "a")
    assert server.connections_accepted == 1


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_stream_closed_before_its_first_step_sends_nothing(
    serve, pool_to, each_loop, kind, through_httpx
):
    """Scenario 35: no request is sent."""
    server = serve(silent)
    pool = pool_to(server)
    stream, reader = start_reading(pool, kind, through_httpx)
    stream.close()
    assert await reader == ""
    assert server.connections_accepted == 0


async def test_the_readers_own_cancellation_stays_a_cancellation(serve, pool_to, each_loop):
    """Scenarios 21 and 24: also in the tick in which another task closes the stream."""
    server = serve(silent)
    pool = pool_to(server, read=30.0)
    stream, reader = start_reading(pool, "task", through_httpx=False)
    await server.await_until(lambda s: s.requests)
    stream.close()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await server.await_until(lambda s: s.connections_open == 0)


async def test_after_the_close_the_task_is_as_before(serve, pool_to, each_loop):
    """Scenario 24: closing the stream leaves no cancellation pending in the task that read it."""
    server = serve(silent)
    pool = pool_to(server, read=30.0)
    stream = pool.astream("Hello?")

    async def reads_on():
        assert await read_text(stream) == ""
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    reader = asyncio.ensure_future(reads_on())
    await server.await_until(lambda s: s.requests)
    stream.close()
    async with asyncio.timeout(5):
        assert await reader == 0


async def test_a_failure_is_not_taken_for_the_close(serve, pool_to, each_loop):
    """Scenario 11: a failure before the close is raised."""
    server = serve(silent)
    pool = pool_to(server)
    server.stop()
    stream = pool.astream("Hello?")
    with pytest.raises(ConnectFailed):
        await anext(stream)
    stream.close()


async def test_a_scope_that_was_cancelled_lets_nothing_begin(each_loop):
    """Scenario 35: the same if the close comes just before the call starts on the host loop."""
    scope = CancelScope()
    scope.cancel()

    async def enter():
        with scope.on(host_loop):
            pytest.fail("it began")

    host_loop = host_loop_of_caller()
    with pytest.raises(PoolClosed, match="closed before its answer began"):
        await host_loop.arun(enter)


async def test_a_scope_that_was_left_interrupts_nothing(each_loop):
    """Scenario 24: a close that takes effect after the head has arrived cancels nothing."""
    scope = CancelScope()
    host_loop = host_loop_of_caller()

    async def enter_and_go_on():
        with scope.on(host_loop):
            scope.cancel()  # takes effect after the block has ended
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "undisturbed"

    assert await host_loop.arun(enter_and_go_on) == "undisturbed"
