"""Streams that are read whole, closed before their end, or garbage-collected."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from llm_pool.exceptions import (
    APIError,
    RateLimited,
)
from testbed.behaviours import (
    close,
    endless,
    events,
    hold,
    json_reply,
    mark,
    per_connection,
    raw,
    steps,
)
from testbed.chat import chat_stream
from tests.fixtures.callers import read_text
from tests.fixtures.engine import request_to, until_pool

HERE = r"test_streams\.py:\d+"


# Read to the end.


async def test_an_event_stream_arrives_whole_however_it_is_cut_up(serve, pool_to, each_loop):
    """Scenario 38: over a socket, byte by byte, with a BOM, all line endings and multi-line data."""
    stream = (
        '\ufeff: hello\r\ndata: {"choices": [{"index": 0, "delta": {"content": "é\u2028"}}]}\r\r'
        "id: 7\r\n\r\nretry: 10\n\n"
        'data: {"choices": [\r\ndata: {"index": 0, "delta": {"content": "😀"}}]}\r\n\r\ndata: [DONE]'
    ).encode()
    pool = pool_to(serve(events(*[bytes([byte]) for byte in stream])))
    assert await read_text(pool.astream("Hello?")) == "é\u2028😀"


# Closed before the end.


async def test_a_stream_that_is_left_near_its_end_is_drained(serve, pool_to, server_loop):
    """Scenario 35: the rest is read, and the connection serves the next call."""
    server = serve(steps(chat_stream(["a", "b"], pace="token"), mark("sent")))
    pool = pool_to(server)
    server.gate("token").admit(1)
    stream = pool.astream("Hello?")
    await anext(stream)
    stream.close()
    server.gate("token").open()
    server.wait_mark("sent")  # blocks our loop, which gets the rest after the close
    await until_pool(pool.engine, lambda: pool.stats().idle == 1)
    assert await read_text(pool.astream("Hello?")) == "ab"
    assert server.connections_accepted == 1


async def test_a_stream_that_is_left_long_before_its_end_is_closed(serve, pool_to, each_loop):
    """Scenario 35: after 100 ms at the latest."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)
    stream = pool.astream("Hello?")
    await anext(stream)
    began = time.monotonic()
    await stream.aclose()
    await server.await_until(lambda s: s.disconnects)
    assert time.monotonic() - began < 1.5
    await until_pool(pool.engine, lambda: pool.stats().connections == 0)


async def test_a_drain_is_bounded_in_bytes_too(serve, engine_pool, each_loop, monkeypatch):
    """Scenario 35: the rest of an endless response is not read, even if there is time."""
    monkeypatch.setattr("llm_pool.engine.http11.connection.DRAIN_SECONDS", 30.0)
    server, pool = serve(endless()), engine_pool()
    exchange = await pool.open(request_to(server))
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)


async def test_a_response_that_is_left_before_its_head_is_closed_at_once(serve, engine_pool, each_loop):
    """Scenario 35: there is no response yet to drain."""
    server, pool = serve(steps(raw(), hold)), engine_pool()
    exchange = await pool.open(request_to(server, None))
    exchange.close_threadsafe()
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)


async def test_an_error_status_on_a_stream_frees_the_connection(serve, pool_to, each_loop):
    """Scenario 35: the response is read to its end, and the connection serves the next call."""
    server = serve(
        per_connection(steps(json_reply({"error": {"message": "slower"}}, 429), chat_stream(["a"])))
    )
    pool = pool_to(server)
    with pytest.raises(RateLimited, match="slower"):
        await anext(pool.astream("Hello?"))
    assert [chunk.text async for chunk in pool.astream("Hello?") if chunk.text] == ["a"]
    assert server.connections_accepted == 1


async def test_an_error_status_with_a_body_without_end_frees_the_connection(serve, pool_to, each_loop):
    """Scenario 35: only the beginning of the body is read, for the error."""
    head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
    server = serve(endless(head=head))
    pool = pool_to(server)
    with pytest.raises(APIError, match="500"):
        await anext(pool.astream("Hello?"))
    await server.await_until(lambda s: s.disconnects)


@pytest.mark.parametrize("ending", ["closed", "cancelled", "failed"])
async def test_however_a_stream_ends_its_connection_is_freed(serve, pool_to, each_loop, ending):
    """Scenario 35: closed or failed between two reads, or cancelled during a read."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)

    async def read():
        async with pool.astream("Hello?") as stream:
            async for chunk in stream:
                server.mark(chunk.text)
                if ending == "failed":
                    raise KeyError(chunk.text)
                if ending == "closed":
                    return

    reader = asyncio.ensure_future(read())
    await server.await_mark("a")
    if ending == "cancelled":
        reader.cancel()
    results = await asyncio.gather(reader, return_exceptions=True)
    assert [type(result) for result in results] == [
        {"closed": type(None), "cancelled": asyncio.CancelledError, "failed": KeyError}[ending]
    ]
    await server.await_until(lambda s: s.disconnects)


# Abandoned.


async def test_an_abandoned_stream_is_freed_and_named(serve, pool_to, each_loop):
    """Scenario 35: the warning says where it was opened."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)
    held = [pool.astream("Hello?")]
    await anext(held[0])
    with pytest.warns(ResourceWarning, match=f"a stream that was opened at .*{HERE} was neither read"):
        collect(held)
    await server.await_until(lambda s: s.disconnects)


def test_an_abandoned_stream_of_a_thread_is_freed_and_named(serve, pool_to):
    """Scenario 35: even if another thread collects it."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)
    held = [pool.stream("Hello?")]
    next(held[0])
    with pytest.warns(ResourceWarning, match=HERE):
        in_thread(collect, held)
    server.wait_until(lambda s: s.disconnects)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_abandoned_stream_is_freed_where_warnings_are_errors(serve, pool_to):
    """Scenario 35: the connection is closed before the warning is raised."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    server.gate("token").admit(1)
    held = [pool_to(server).stream("Hello?")]
    next(held[0])
    collect(held)
    server.wait_until(lambda s: s.disconnects)


@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
async def test_an_abandoned_response_of_the_async_client_is_freed_and_named(serve, pool_to, each_loop, begun):
    """Scenario 35: httpx itself would never free it."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)
    client = pool.aclient
    response = await client.send(client.build_request("POST", "chat/completions"), stream=True)
    held = [response.aiter_raw(), response]
    if begun:
        await anext(held[0])
    del response
    with pytest.warns(ResourceWarning, match=f"a response that was opened at .*{HERE} was neither read"):
        await until_pool(pool.engine, lambda: collect(held) or server.disconnects)


@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
def test_an_abandoned_response_of_the_sync_client_is_freed_and_named(serve, pool_to, begun):
    """Scenario 35: as with the async client."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server)
    server.gate("token").admit(1)
    client = pool.client
    response = client.send(client.build_request("POST", "chat/completions"), stream=True)
    held = [response.iter_raw(), response]
    if begun:
        next(held[0])
    del response
    with pytest.warns(ResourceWarning, match=f"a response that was opened at .*{HERE} was neither read"):
        collect(held)
    server.wait_until(lambda s: s.disconnects)


async def test_what_was_read_or_closed_is_not_warned_of(serve, pool_to, each_loop, recwarn):
    """Scenario 35: nor are failed calls."""
    pool = pool_to(serve(chat_stream(["a"])))
    await pool.arequest("POST", "chat/completions")
    [chunk async for chunk in pool.astream("Hello?")]
    async with pool.aclient.stream("POST", "chat/completions"):
        pass
    with pytest.raises(Exception, match="closed the connection"):
        await pool_to(serve(steps(raw(), close))).arequest("POST", "chat/completions")
    gc.collect()
    assert not recwarn.list


def collect(held):
    """Drop the references in ``held``, and collect the garbage."""
    held.clear()
    gc.collect()


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()
