"""A reader slower than the server, and a server slower than the upload."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_pool.engine.exchange import HIGH_WATER
from llm_pool.exceptions import (
    WriteTimeout,
)
from testbed.behaviours import (
    reply,
    stop_reading,
)
from testbed.chat import chat_stream
from tests.fixtures.callers import read_text
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import buffered_bytes_of, has_room

MEGABYTE = 1_000_000


# Slow readers.


async def test_a_slow_consumer_stops_the_server(serve, engine_pool, each_loop):
    """Scenario 37: the server can send only as much as the kernels and the pool's buffer hold."""
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
    assert buffered_bytes_of(exchange) < MEGABYTE
    assert len((await exchange.host_loop.arun(exchange.read_all)).body) == total
    await until_pool(pool, lambda: pool.stats().idle == 1)


async def test_a_connection_that_was_held_up_serves_again(serve, engine_pool, each_loop):
    """Scenario 37: the last piece fills the buffer, and is still unread when the next call begins."""
    body = b"x" * (HIGH_WATER + 1)  # however it is split, its last byte exceeds the buffer
    server, pool = serve(reply(body=body)), engine_pool()
    exchanges = []
    for _ in range(5):
        exchanges.append(await pool.open(request_to(server, read=5.0)))
        await until_pool(pool, lambda: pool.stats().idle == 1)
    responses = [await exchange.host_loop.arun(exchange.read_all) for exchange in exchanges]
    assert [whole.body for whole in responses] == [body] * 5
    assert server.connections_accepted == 1


async def test_a_slow_reader_causes_no_read_timeout(serve, pool_to, each_loop):
    """Scenario 37: the consumer pauses for longer than the read timeout."""
    server = serve(chat_stream(["a", "b", "c"], pace="token"))
    pool = pool_to(server, read=1.5)
    server.gate("token").admit(1)
    stream = pool.astream("Hello?")
    assert (await anext(stream)).text == "a"
    await asyncio.sleep(2.0)  # longer than the read timeout
    server.gate("token").open()
    assert await read_text(stream) == "bc"


async def test_every_piece_is_a_sign_of_life(serve, engine_pool, each_loop):
    """Scenario 37: a body may take longer than the read timeout if each piece comes in time."""

    async def drip(conn):
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": "20"})
        for _ in range(20):
            await asyncio.sleep(0.1)
            await conn.send(b"x")

    whole = await engine_pool().fetch(request_to(serve(drip), read=1.5))
    assert whole.body == b"x" * 20


# Slow uploads.

UPLOAD = b"x" * (8 * MEGABYTE)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
async def test_a_server_that_takes_nothing_costs_one_write_timeout(serve, engine_pool, each_loop, pieces):
    """Scenario 37: an upload without progress ends at the write timeout, not the longer read timeout."""
    server, pool = serve(stop_reading()), engine_pool()
    request = request_to(server, None if pieces else UPLOAD, write=0.4, read=30.0)
    began = time.monotonic()
    with pytest.raises(WriteTimeout, match=r"accepted nothing of the request for 0\.4 s"):
        await upload(pool, request)
    assert time.monotonic() - began < 5
    await until_pool(pool, lambda: pool.stats().connections == 0)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
async def test_a_slow_upload_that_makes_progress_succeeds(serve, engine_pool, each_loop, pieces):
    """Scenario 37: each part that the server accepts restarts the write timeout."""

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
    """Scenario 37: ``write`` accepts only as much as the kernels and the pool's buffer hold."""
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
    await until_pool(pool, lambda: not has_room(exchange))
    assert written < 30
    server.gate("go on").open()
    await writing
    assert (await exchange.host_loop.arun(exchange.read_all)).status == 200
    assert len(server.requests[0].body) == 40 * MEGABYTE


async def upload(pool, request):
    """Send the request, in pieces if it has no body, and read the response."""
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
