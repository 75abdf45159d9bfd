"""Streams that stall, are cut, break their framing, or are closed by another thread."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_pool.exceptions import (
    InvalidResponse,
    ReadTimeout,
    StreamInterrupted,
    TotalTimeout,
)
from testbed.behaviours import (
    EVENTS,
    close,
    endless,
    events,
    fin,
    hold,
    reset,
    send,
    steps,
)
from testbed.chat import chat_event, chat_stream
from tests.fixtures.callers import close_in_threads, read_text
from tests.fixtures.engine import request_to, until_pool

DONE = chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_stream_that_stalls_ends_at_the_read_timeout(serve, pool_to, kind):
    """Scenario 36: the text received so far is kept."""
    server = serve(chat_stream(["a", "b"], then=hold))
    pool = pool_to(server, read=1.5)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    began = time.monotonic()
    with pytest.raises(ReadTimeout, match=r"sent nothing for 1\.5 s"):
        await read_text(stream)
    assert 1.4 < time.monotonic() - began < 4.5
    assert stream.text == "ab"
    assert stream.completion is None
    await server.await_until(lambda s: s.disconnects)


@pytest.mark.parametrize("kind", ["task", "thread"])
@pytest.mark.parametrize("cut", [close, fin, reset])
async def test_a_stream_that_is_cut_is_interrupted(serve, pool_to, cut, kind):
    """Scenario 36: the error has the text received so far."""
    pool = pool_to(serve(chat_stream(["a", "b"], then=steps(cut, hold))))
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    with pytest.raises(StreamInterrupted, match="was cut short") as caught:
        await read_text(stream)
    assert caught.value.partial == stream.text == "ab"
    assert stream.completion is None


async def test_a_stream_that_ends_properly_and_too_early_is_interrupted(serve, pool_to, each_loop):
    """Scenario 36: the HTTP body is complete, but the provider's last event is missing."""
    pool = pool_to(serve(events(chat_event({"content": "a"}), chat_event({"content": "b"}))))
    with pytest.raises(StreamInterrupted, match="its body ended") as caught:
        await read_text(pool.astream("Hello?"))
    assert caught.value.partial == "ab"


async def test_a_stream_that_breaks_its_framing_is_interrupted(serve, pool_to, each_loop):
    """Scenario 36: bytes that are no chunk, in the middle of the body."""
    pool = pool_to(serve(chat_stream(["a"], then=steps(send(b"no chunk\r\n"), hold))))
    with pytest.raises(StreamInterrupted) as caught:
        await read_text(pool.astream("Hello?"))
    assert caught.value.partial == "a"


async def test_what_is_no_answer_is_not_called_an_interruption(serve, pool_to, each_loop):
    """Scenario 36: asking for the rest would not help."""
    pool = pool_to(serve(events(chat_event({"content": "a"}), b"data: <html>\n\n")))
    with pytest.raises(InvalidResponse) as caught:
        await read_text(pool.astream("Hello?"))
    assert caught.value.partial == "a"


@pytest.mark.parametrize("then", [hold, close, reset], ids=["stalls", "closes", "resets"])
@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_failure_after_the_last_event_is_ignored(serve, pool_to, kind, then):
    """Scenario 36: it ends with the provider's last event, and does not wait for the end of the body."""

    async def script(conn):
        await conn.read_request()
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        await conn.send_chunk(chat_event({"content": "a"}) + DONE)
        await then(conn)

    pool = pool_to(serve(script), read=30.0)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    began = time.monotonic()
    await read_text(stream)
    assert time.monotonic() - began < 5
    assert stream.completion.text == "a"


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_stream_closed_by_another_thread_ends_for_its_reader(serve, pool_to, kind):
    """Scenario 35: without an error; closing it more than once is allowed."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server, read=30.0)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    reader = asyncio.ensure_future(read_text(stream))
    server.gate("token").admit(1)
    await server.await_until(lambda s: s.gate("token").reached == 2)
    await until_pool(pool.engine, lambda: stream.text == "a")
    close_in_threads(stream)
    async with asyncio.timeout(5):
        assert await reader == "a"
    assert stream.completion is None
    await server.await_until(lambda s: s.disconnects)


async def test_the_total_timeout_ends_a_stream_that_goes_on(serve, engine_pool, each_loop):
    """Scenario 36: while data arrives, with a reader and without."""
    server, pool = serve(endless()), engine_pool()
    read, unread = [await pool.open(request_to(server, read=30.0, total=2.5)) for _ in range(2)]
    with pytest.raises(TotalTimeout, match=r"longer than its total timeout of 2\.5 s"):
        await read.host_loop.arun(read_to_end, read)
    await until_pool(pool, lambda: unread.error is not None)
    assert isinstance(unread.error, TotalTimeout)
    await server.await_until(lambda s: len(s.disconnects) == 2)


async def read_to_end(exchange):
    while await exchange.read():
        pass
