"""Responses that come in pieces: left, abandoned, stalled, cut, or read more slowly than they come."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from llm_pool.engine.exchange import HIGH_WATER
from llm_pool.exceptions import (
    APIError,
    InvalidResponse,
    RateLimited,
    ReadTimeout,
    StreamInterrupted,
    TotalTimeout,
    WriteTimeout,
)
from testbed.behaviours import (
    EVENTS,
    close,
    endless,
    events,
    fin,
    hold,
    json_reply,
    mark,
    per_connection,
    raw,
    reply,
    reset,
    send,
    steps,
    stop_reading,
)
from testbed.chat import chat_event, chat_stream
from tests.fixtures.engine import request_to, until_pool
from tests.scenarios.callers import read_out

HERE = r"test_streams\.py:\d+"
DONE = chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n"
MEGABYTE = 1_000_000


# As it should be.


async def test_an_event_stream_arrives_whole_however_it_is_cut_up(serve, pool_to, each_loop):
    """Scenario 38: over a socket, byte by byte, in all the ways in which it may be written."""
    stream = (
        '\ufeff: hello\r\ndata: {"choices": [{"index": 0, "delta": {"content": "é\u2028"}}]}\r\r'
        "id: 7\r\n\r\nretry: 10\n\n"
        'data: {"choices": [\r\ndata: {"index": 0, "delta": {"content": "😀"}}]}\r\n\r\ndata: [DONE]'
    ).encode()
    pool = pool_to(serve(events(*[bytes([byte]) for byte in stream])))
    assert await read_out(pool.astream("Hello?")) == "é\u2028😀"


# Left before its end.


async def test_a_stream_that_is_left_near_its_end_is_drained(serve, pool_to, server_loop):
    """Scenario 35: the connection is clean again, and serves the next call."""
    server = serve(steps(chat_stream(["a", "b"], pace="token"), mark("sent")))
    pool = pool_to(server)
    server.gate("token").admit(1)
    stream = pool.astream("Hello?")
    await anext(stream)
    stream.close()
    server.gate("token").open()
    server.wait_mark("sent")  # our own loop stands still: it finds the rest when it has heard of the close
    await until_pool(pool.engine, lambda: pool.stats().idle == 1)
    assert await read_out(pool.astream("Hello?")) == "ab"
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
    """Scenario 35: what pours is not read out, whatever the time."""
    monkeypatch.setattr("llm_pool.engine.http11.connection.DRAIN_SECONDS", 30.0)
    server, pool = serve(endless()), engine_pool()
    exchange = await pool.open(request_to(server))
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)


async def test_a_response_that_is_left_before_its_head_is_closed_at_once(serve, engine_pool, each_loop):
    """Scenario 35: there is nothing yet that could be drained."""
    server, pool = serve(steps(raw(), hold)), engine_pool()
    exchange = await pool.open(request_to(server, None))
    exchange.close_threadsafe()
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)


async def test_an_error_status_on_a_stream_frees_the_connection(serve, pool_to, each_loop):
    """Scenario 35: it is read out, and serves the next call."""
    server = serve(
        per_connection(steps(json_reply({"error": {"message": "slower"}}, 429), chat_stream(["a"])))
    )
    pool = pool_to(server)
    with pytest.raises(RateLimited, match="slower"):
        await anext(pool.astream("Hello?"))
    assert [chunk.text async for chunk in pool.astream("Hello?") if chunk.text] == ["a"]
    assert server.connections_accepted == 1


async def test_an_error_status_with_a_body_without_end_frees_the_connection(serve, pool_to, each_loop):
    """Scenario 35: nobody reads more of it than an error can hold."""
    head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
    server = serve(endless(head=head))
    pool = pool_to(server)
    with pytest.raises(APIError, match="500"):
        await anext(pool.astream("Hello?"))
    await server.await_until(lambda s: s.disconnects)


@pytest.mark.parametrize("ending", ["closed", "cancelled", "failed"])
async def test_however_a_stream_ends_its_connection_is_freed(serve, pool_to, each_loop, ending):
    """Scenario 35: in the middle of a read."""
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
    """Scenario 35: collected by another thread, too, than the one that read it."""
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
    """Scenario 35: the connection goes first."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    server.gate("token").admit(1)
    held = [pool_to(server).stream("Hello?")]
    next(held[0])
    collect(held)
    server.wait_until(lambda s: s.disconnects)


@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
async def test_an_abandoned_response_of_the_async_client_is_freed_and_named(serve, pool_to, each_loop, begun):
    """Scenario 35: httpx itself would keep it for ever."""
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
    """Scenario 35: as of the async client."""
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
    """Scenario 35: nor what failed."""
    pool = pool_to(serve(chat_stream(["a"])))
    await pool.arequest("POST", "chat/completions")
    [chunk async for chunk in pool.astream("Hello?")]
    async with pool.aclient.stream("POST", "chat/completions"):
        pass
    with pytest.raises(Exception, match="closed the connection"):
        await pool_to(serve(steps(raw(), close))).arequest("POST", "chat/completions")
    gc.collect()
    assert not recwarn.list


# Stalled or cut.


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_stream_that_stalls_ends_at_the_read_timeout(serve, pool_to, kind):
    """Scenario 36: what had come is still there."""
    server = serve(chat_stream(["a", "b"], then=hold))
    pool = pool_to(server, read=1.5)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    began = time.monotonic()
    with pytest.raises(ReadTimeout, match=r"sent nothing for 1\.5 s"):
        await read_out(stream)
    assert 1.4 < time.monotonic() - began < 4.5
    assert stream.text == "ab"
    assert stream.completion is None
    await server.await_until(lambda s: s.disconnects)


@pytest.mark.parametrize("kind", ["task", "thread"])
@pytest.mark.parametrize("cut", [close, fin, reset])
async def test_a_stream_that_is_cut_is_interrupted(serve, pool_to, cut, kind):
    """Scenario 36: the error has the text that had come."""
    pool = pool_to(serve(chat_stream(["a", "b"], then=steps(cut, hold))))
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    with pytest.raises(StreamInterrupted, match="was cut short") as caught:
        await read_out(stream)
    assert caught.value.partial == stream.text == "ab"
    assert stream.completion is None


async def test_a_stream_that_ends_properly_and_too_early_is_interrupted(serve, pool_to, each_loop):
    """Scenario 36: HTTP is content, and the provider had not said that it was done."""
    pool = pool_to(serve(events(chat_event({"content": "a"}), chat_event({"content": "b"}))))
    with pytest.raises(StreamInterrupted, match="its body ended") as caught:
        await read_out(pool.astream("Hello?"))
    assert caught.value.partial == "ab"


async def test_a_stream_that_breaks_its_framing_is_interrupted(serve, pool_to, each_loop):
    """Scenario 36: bytes that are no chunk, in the middle of one."""
    pool = pool_to(serve(chat_stream(["a"], then=steps(send(b"no chunk\r\n"), hold))))
    with pytest.raises(StreamInterrupted) as caught:
        await read_out(pool.astream("Hello?"))
    assert caught.value.partial == "a"


async def test_what_is_no_answer_is_not_called_an_interruption(serve, pool_to, each_loop):
    """Scenario 36: asking again for the rest would not help."""
    pool = pool_to(serve(events(chat_event({"content": "a"}), b"data: <html>\n\n")))
    with pytest.raises(InvalidResponse) as caught:
        await read_out(pool.astream("Hello?"))
    assert caught.value.partial == "a"


@pytest.mark.parametrize("then", [hold, close, reset], ids=["stalls", "closes", "resets"])
@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_after_its_last_word_nothing_can_spoil_a_stream(serve, pool_to, kind, then):
    """Scenario 36: it is over when the provider says so, and does not wait for the body's end."""

    async def script(conn):
        await conn.read_request()
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        await conn.send_chunk(chat_event({"content": "a"}) + DONE)
        await then(conn)

    pool = pool_to(serve(script), read=30.0)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    began = time.monotonic()
    await read_out(stream)
    assert time.monotonic() - began < 5
    assert stream.completion.text == "a"


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_stream_closed_by_another_thread_ends_for_its_reader(serve, pool_to, kind):
    """Scenario 35: quietly, as at its end; and closing is never one time too many."""
    server = serve(chat_stream(["a", "b"], pace="token"))
    pool = pool_to(server, read=30.0)
    stream = pool.astream("Hello?") if kind == "task" else pool.stream("Hello?")
    reader = asyncio.ensure_future(read_out(stream))
    server.gate("token").admit(1)
    await server.await_until(lambda s: s.gate("token").reached == 2)
    await until_pool(pool.engine, lambda: stream.text == "a")
    closers = [threading.Thread(target=stream.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    async with asyncio.timeout(5):
        assert await reader == "a"
    assert stream.completion is None
    await server.await_until(lambda s: s.disconnects)


async def test_the_total_timeout_ends_a_stream_that_goes_on(serve, engine_pool, each_loop):
    """Scenario 36: however lively it is, and whether or not anybody reads."""
    server, pool = serve(endless()), engine_pool()
    read, unread = [await pool.open(request_to(server, read=30.0, total=2.5)) for _ in range(2)]
    with pytest.raises(TotalTimeout, match=r"longer than its total timeout of 2\.5 s"):
        await read.host_loop.arun(read_for_ever, read)
    await until_pool(pool, lambda: unread.error is not None)
    assert isinstance(unread.error, TotalTimeout)
    await server.await_until(lambda s: len(s.disconnects) == 2)


# Read more slowly than it comes.


async def test_a_slow_consumer_stops_the_server(serve, engine_pool, each_loop):
    """Scenario 37: it gets rid of no more than what the kernels and one buffer hold."""
    total = 100 * MEGABYTE

    async def pour(conn):
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": str(total)})
        for _ in range(100):
            sending = asyncio.ensure_future(conn.send(b"x" * MEGABYTE))
            done, _ = await asyncio.wait([sending], timeout=1.0)
            if not done:
                conn.server.mark("stalled")
            await sending
        conn.server.mark("sent")

    server, pool = serve(pour), engine_pool()
    exchange = await pool.open(request_to(server, read=30.0))
    await server.await_(lambda: server.marks("stalled") or server.marks("sent"), "it stalls or not")
    assert server.connections[0].bytes_sent < 30 * MEGABYTE
    assert exchange._buffered < MEGABYTE
    assert len((await exchange.host_loop.arun(exchange.read_all)).body) == total
    await until_pool(pool, lambda: pool.stats().idle == 1)


async def test_a_connection_that_was_held_up_serves_again(serve, engine_pool, each_loop):
    """Scenario 37: its last piece was one too many, and nobody has read it when the next call begins."""
    body = b"x" * (HIGH_WATER + 1)  # however it is cut up: with its last byte there is more than is kept
    server, pool = serve(reply(body=body)), engine_pool()
    exchanges = []
    for _ in range(5):
        exchanges.append(await pool.open(request_to(server, read=5.0)))
        await until_pool(pool, lambda: pool.stats().idle == 1)
    wholes = [await exchange.host_loop.arun(exchange.read_all) for exchange in exchanges]
    assert [whole.body for whole in wholes] == [body] * 5
    assert server.connections_accepted == 1


async def test_nobody_reading_is_no_read_timeout(serve, pool_to, each_loop):
    """Scenario 37: the consumer takes its time, and then the server its own."""
    server = serve(chat_stream(["a", "b", "c"], pace="token"))
    pool = pool_to(server, read=1.5)
    server.gate("token").admit(1)
    stream = pool.astream("Hello?")
    assert (await anext(stream)).text == "a"
    await asyncio.sleep(2.0)  # what the consumer does takes longer than the read timeout
    server.gate("token").open()
    assert await read_out(stream) == "bc"


async def test_every_piece_is_a_sign_of_life(serve, engine_pool, each_loop):
    """Scenario 37: a whole body may take longer than the read timeout, as long as it moves."""

    async def drip(conn):
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": "20"})
        for _ in range(20):
            await asyncio.sleep(0.1)
            await conn.send(b"x")

    whole = await engine_pool().fetch(request_to(serve(drip), read=1.5))
    assert whole.body == b"x" * 20


# Sent more slowly than it is written.

UPLOAD = b"x" * (8 * MEGABYTE)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
async def test_a_server_that_takes_nothing_costs_one_write_timeout(serve, engine_pool, each_loop, pieces):
    """Scenario 37: the other direction."""
    server, pool = serve(stop_reading()), engine_pool()
    request = request_to(server, None if pieces else UPLOAD, write=0.4, read=30.0)
    began = time.monotonic()
    with pytest.raises(WriteTimeout, match=r"accepted nothing of the request for 0\.4 s"):
        await upload(pool, request)
    assert time.monotonic() - began < 5
    await until_pool(pool, lambda: pool.stats().connections == 0)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
async def test_a_server_that_takes_it_slowly_is_borne_with(serve, engine_pool, each_loop, pieces):
    """Scenario 37: as long as it takes some, however long it takes for all."""

    async def slow(conn):
        await conn.read_head()
        taken = 0
        while taken < len(UPLOAD):
            conn.pause_reading()
            await asyncio.sleep(0.075)
            conn.resume_reading()
            taken += len(await conn.read_some())
        await conn.respond(200, {}, b"thanks")

    server, pool = serve(slow), engine_pool()
    request = request_to(server, None if pieces else UPLOAD, write=1.5, read=5.0)
    assert (await upload(pool, request)).body == b"thanks"


async def test_an_upload_in_pieces_waits_for_the_server(serve, engine_pool, each_loop):
    """Scenario 37: no more of it is taken from its writer than the kernels and one buffer hold."""
    server, pool = serve(stop_reading("go on")), engine_pool()
    exchange = await pool.open(request_to(server, None))
    written = 0

    async def write():
        nonlocal written
        for _ in range(40):
            await exchange.write(b"x" * MEGABYTE)
            written += 1
        await exchange.finish()
        await exchange.head()

    writing = asyncio.ensure_future(exchange.host_loop.arun(write))
    await until_pool(pool, lambda: not exchange._carrier.has_room)
    assert written < 30
    server.gate("go on").open()
    await writing
    assert (await exchange.host_loop.arun(exchange.read_all)).status == 200
    assert len(server.requests[0].body) == 40 * MEGABYTE


def collect(held):
    """What was held is garbage from now on."""
    held.clear()
    gc.collect()


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


async def read_for_ever(exchange):
    while await exchange.read():
        pass


async def upload(pool, request):
    """Send the request, its body in pieces if need be, and read the response."""
    if request.body is not None:
        return await pool.fetch(request)
    exchange = await pool.open(request)
    try:
        return await exchange.host_loop.arun(in_pieces, exchange)
    finally:
        exchange.close_threadsafe()


async def in_pieces(exchange):
    for _ in range(8):
        await exchange.write(b"x" * MEGABYTE)
    await exchange.finish()
    await exchange.head()
    return await exchange.read_all()
