"""On every engine, the read timeout is silence: each byte of the response restarts it."""

from __future__ import annotations

import asyncio
import json

import pytest
from h2.settings import SettingCodes
from hyperframe import frame as frames

from llm_pool.exceptions import ReadTimeout, WriteTimeout
from testbed.behaviours import hold as hold_on
from testbed.behaviours import steps
from testbed.http2 import http2, offering_http2
from tests.backends.conftest import HTTP1, HTTP2
from tests.fixtures.callers import at_once, in_thread
from tests.fixtures.engine import until_pool

MESSAGE = {"role": "assistant", "content": "Hello!"}
BODY = json.dumps({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WITH_LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"

READ = 0.8
PAUSE = 0.1
PIECES = 15
"""The pieces take longer than the read timeout, and each comes long before its end."""


def pieces_of(data):
    size = -(-len(data) // PIECES)
    return [data[start : start + size] for start in range(0, len(data), size)]


def drip(first, slow, last=b""):
    """Send ``first``, then each piece of ``slow`` after a pause, then ``last``."""

    async def script(conn):
        await conn.send(first)
        for piece in slow:
            await asyncio.sleep(PAUSE)
            await conn.send(piece)
        await conn.send(last)

    return script


SIZE = b"%x;" % len(BODY)
DRIPS = {
    "interim responses": drip(b"", [INTERIM] * PIECES, WITH_LENGTH + BODY),
    "head": drip(b"", pieces_of(WITH_LENGTH), BODY),
    "chunk size": drip(CHUNKED, pieces_of(SIZE + b"extension=of-a-chunk"), b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "trailers": drip(
        CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n", pieces_of(b"0\r\nTrailer: abcdef\r\n"), b"\r\n"
    ),
}


async def drip_the_part(conn):
    """Send the part of the response slowly whose name is in the request."""
    await DRIPS[named_in(await conn.read_request(), DRIPS)](conn)


def named_in(request, parts):
    [part] = [part for part in parts if part.encode() in request.body]
    return part


CALLS = {
    "acomplete": lambda pool, part: pool.acomplete(part),
    "complete": lambda pool, part: in_thread(pool.complete, part),
    "arequest": lambda pool, part: pool.arequest("POST", "/x", content=part),
    "request": lambda pool, part: in_thread(lambda: pool.request("POST", "/x", content=part)),
}
each_call = pytest.mark.parametrize("call", CALLS)


async def succeed(call, pool, parts):
    """Make a call for each of the parts, all at once."""

    async def succeeds(part):
        result = await CALLS[call](pool, part)
        assert getattr(result, "content", None) == BODY or str(result) == "Hello!"

    await at_once({part: succeeds(part) for part in parts})


@pytest.mark.kinds(HTTP1)
@each_call
async def test_each_part_of_a_response_restarts_it(serve, configure, call):
    await succeed(call, configure(serve(drip_the_part), TIMEOUTS={"read": READ}), DRIPS)


@pytest.mark.kinds(HTTP1)
async def test_on_the_server_loop_too(serve, configure, server_loop):
    await succeed("acomplete", configure(serve(drip_the_part), TIMEOUTS={"read": READ}), DRIPS)


@pytest.mark.kinds(HTTP1)
async def test_under_tls_too(serve, configure, certificates):
    server = serve(drip_the_part, tls=certificates.good)
    tls = {"ca_file": certificates.ca_file}
    await succeed("acomplete", configure(server, TIMEOUTS={"read": READ}, TLS=tls), DRIPS)


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize(
    "script",
    [drip(b"", [INTERIM] * 3), drip(b"", [WITH_LENGTH[:9]]), drip(CHUNKED, [SIZE])],
    ids=["interim responses", "head", "chunk size"],
)
async def test_silence_after_a_part_is_silence(serve, configure, script):
    pool = configure(serve(steps(lambda conn: conn.read_request(), script, hold_on)), TIMEOUTS={"read": 0.3})
    with pytest.raises(ReadTimeout, match=r"sent nothing for 0\.3 s"):
        await pool.acomplete("hello")


@pytest.mark.kinds(["native-http1", "aiohttp"])
async def test_interim_responses_do_not_postpone_the_write_timeout(serve, configure):
    """httpcore reads nothing before it has sent the whole body."""

    async def script(conn):
        await conn.read_head()
        conn.pause_reading()
        while True:
            await asyncio.sleep(0.05)
            await conn.send(INTERIM)

    pool = configure(serve(script), TIMEOUTS={"write": 0.4, "read": 30.0, "total": 30.0})
    with pytest.raises(WriteTimeout):
        await pool.arequest("POST", "/x", content=b"x" * 20_000_000)


# HTTP/2


async def interim(stream):
    for _ in range(PIECES):
        await asyncio.sleep(PAUSE)
        await stream.head(103)
    await stream.respond(body=BODY)


async def slow_head(stream):
    await slowly(
        stream, frames.HeadersFrame(stream.number, data=head_of(stream), flags=["END_HEADERS"]).serialize()
    )
    await stream.peer.send_frames(frames.DataFrame(stream.number, data=BODY, flags=["END_STREAM"]))


async def continuations(stream):
    first, *rest = pieces_of(head_of(stream))
    await stream.peer.send_frames(frames.HeadersFrame(stream.number, data=first))
    for piece in rest:
        await asyncio.sleep(PAUSE)
        await stream.peer.send_frames(frames.ContinuationFrame(stream.number, data=piece))
    await stream.peer.send_frames(
        frames.ContinuationFrame(stream.number, flags=["END_HEADERS"]),
        frames.DataFrame(stream.number, data=BODY, flags=["END_STREAM"]),
    )


async def slow_data(stream):
    await stream.head()
    await slowly(stream, frames.DataFrame(stream.number, data=BODY, flags=["END_STREAM"]).serialize())


async def empty_data(stream):
    await stream.head()
    for _ in range(PIECES):
        await asyncio.sleep(PAUSE)
        await stream.data(b"")
    await stream.data(BODY, end=True)


def head_of(stream):
    return stream.peer.h2.encoder.encode([(":status", "200"), ("x-long", "as long as fifteen pieces")])


async def slowly(stream, data):
    for piece in pieces_of(data):
        await asyncio.sleep(PAUSE)
        await stream.peer.conn.send(piece)


DRIPS_OF_HTTP2 = {
    "interim": interim,
    "head": slow_head,
    "continuations": continuations,
    "data": slow_data,
    "empty": empty_data,
}


async def drip_the_part_of_http2(stream):
    await DRIPS_OF_HTTP2[named_in(stream.request, DRIPS_OF_HTTP2)](stream)


def over_http2(answer):
    async def reply(stream):
        await stream.body()
        await answer(stream)

    return http2(reply, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 100})


@pytest.mark.kinds(HTTP2)
@each_call
async def test_each_part_of_an_http2_response_restarts_it(serve, configure, call):
    server = serve(over_http2(drip_the_part_of_http2))
    await succeed(call, configure(server, TIMEOUTS={"read": READ}), DRIPS_OF_HTTP2)


@pytest.mark.kinds(HTTP2)
async def test_http2_under_tls_too(serve, configure, certificates):
    server = serve(over_http2(drip_the_part_of_http2), tls=offering_http2(certificates))
    tls = {"ca_file": certificates.ca_file}
    pool = configure(server, TIMEOUTS={"read": READ}, TLS=tls, HTTP2=True)
    await succeed("acomplete", pool, ["interim", "head", "data"])


@pytest.mark.kinds(HTTP2)
async def test_bytes_of_another_stream_are_silence(serve, configure):
    """Two calls on one connection, to which the server sends PINGs and WINDOW_UPDATEs too."""

    async def answer(stream):
        if stream.request.target.endswith("silent"):
            await stream.until(lambda: False)
        await stream.head()
        for _ in range(1000):
            await asyncio.sleep(0.05)
            for other in stream.peer.open:
                await stream.peer.send_frames(frames.WindowUpdateFrame(other, window_increment=1))
            await stream.peer.send_frames(frames.PingFrame(0, opaque_data=b"12345678"))
            await stream.data(b"x")

    server = serve(over_http2(answer))
    pool = configure(server, streams=2, TIMEOUTS={"read": 0.6})
    async with pool.aclient.stream("GET", "drip") as dripping:
        pieces = dripping.aiter_raw()
        await anext(pieces)
        silent = asyncio.create_task(pool.arequest("GET", "silent"))
        await server.await_requests(2)
        while not silent.done():
            await anext(pieces)
        with pytest.raises(ReadTimeout, match=r"sent nothing for 0\.6 s"):
            await silent
    assert server.connections_accepted == 1
    await until_pool(pool, lambda: pool.stats().in_use == 0)
