"""On every engine, an answer that the pool collects costs only as much memory as LIMITS allows."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from contextlib import contextmanager
from functools import partial

import pytest

from llm_pool.exceptions import AnswerTooLarge, APIStatusError, ProtocolError, ReadTimeout, StreamInterrupted
from testbed.behaviours import EVENTS, JSON
from testbed.behaviours import endless as endless_bytes
from testbed.chat import chat_event
from tests.backends.conftest import HTTP1
from tests.backends.servers import by_path
from tests.fixtures.callers import in_thread, read_text

LIMIT = 1_000_000
SLACK = 12_000_000
"""Bytes beyond the limit: the buffers of the engine, of the kernel's data on its way, and of the server."""

PIECE = b"x" * 65536
INTERIM = b"HTTP/1.1 102 Processing\r\nX-Header: " + b"value" * 500 + b"\r\n\r\n"
EVENT = chat_event({"content": "x" * 1000})
BOMB = gzip.compress(bytes(200_000_000), 9)


def endless(piece, headers=JSON, status=200):
    """Send a body that never ends."""

    async def behaviour(exchange):
        await exchange.head(status, headers)
        while True:
            await exchange.data(piece)

    return behaviour


def whole(body, headers):
    async def behaviour(exchange):
        await exchange.head(headers=headers)
        await exchange.data(body)
        await exchange.end()

    return behaviour


@contextmanager
def little_memory():
    """Fail if the block takes more memory at its peak than the limit and the buffers explain."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LIMIT + SLACK


@pytest.fixture
def pool_of(serve, play, configure):
    """``pool_of(behaviour)``: a pool whose provider behaves so, but answers GET requests to /ok."""

    def make(behaviour, **settings):
        script = play(by_path(completions=behaviour, big=behaviour))
        limits = {"max_answer_bytes": LIMIT}
        return configure(serve(script), LIMITS=limits, TIMEOUTS={"total": 10.0}, **settings)

    return make


async def others_go_on(pool):
    assert (await pool.arequest("GET", "/ok")).status_code == 200


CALLS = {
    "acomplete": lambda pool: pool.acomplete("hello"),
    "complete": lambda pool: in_thread(pool.complete, "hello"),
    "arequest": lambda pool: pool.arequest("GET", "/big"),
    "request": lambda pool: in_thread(pool.request, "GET", "/big"),
    "aclient": lambda pool: pool.aclient.get("big"),
    "client": lambda pool: in_thread(pool.client.get, "big"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_body_without_end_fails_at_the_limit(pool_of, call, each_loop):
    """Scenario 59."""
    pool = pool_of(endless(PIECE))
    with little_memory(), pytest.raises(AnswerTooLarge, match=f"more than {LIMIT} bytes") as caught:
        await CALLS[call](pool)
    assert 'LIMITS["max_answer_bytes"]' in str(caught.value)
    await others_go_on(pool)


@pytest.mark.parametrize("call", ["acomplete", "complete"])
async def test_a_call_through_httpx_has_the_same_limit(pool_of, call):
    """Scenario 59: with an event hook, as instrumentation installs them, the call takes the way of httpx."""

    async def ahook(_):
        pass

    pool = pool_of(endless(PIECE))
    pool.client.event_hooks = {"request": [lambda _: None]}
    pool.aclient.event_hooks = {"request": [ahook]}
    with little_memory(), pytest.raises(AnswerTooLarge):
        await CALLS[call](pool)


@pytest.mark.parametrize("method", ["astream", "stream"])
async def test_a_valid_stream_without_end_is_interrupted_at_the_limit(pool_of, method, each_loop):
    """Scenario 59: the error has the text so far."""
    stream = getattr(pool_of(endless(EVENT * 10, EVENTS)), method)("hello")
    with little_memory(), pytest.raises(StreamInterrupted, match="max_answer_bytes") as caught:
        await read_text(stream)
    assert isinstance(caught.value.__cause__, AnswerTooLarge)
    assert 0 < len(caught.value.partial) <= LIMIT


@pytest.mark.parametrize("method", ["astream", "stream"])
async def test_the_endless_body_of_an_error_is_read_in_part(pool_of, method):
    """Scenario 59: a stream that was refused."""
    stream = getattr(pool_of(endless(PIECE, status=500)), method)("hello")
    with little_memory(), pytest.raises(APIStatusError):
        await read_text(stream)


async def test_an_answer_of_exactly_the_limit_is_read(pool_of):
    pool = pool_of(whole(b"x" * LIMIT, JSON))
    assert len((await pool.arequest("GET", "/big")).content) == LIMIT
    pool = pool_of(whole(b"x" * (LIMIT + 1), JSON))
    with pytest.raises(AnswerTooLarge):
        await pool.arequest("GET", "/big")


async def test_a_completion_of_exactly_the_limit_is_read(pool_of):
    completion = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}).encode()
    assert (await pool_of(whole(completion.ljust(LIMIT), JSON)).acomplete("hello")).text == "Hi"
    with pytest.raises(AnswerTooLarge):
        await pool_of(whole(completion.ljust(LIMIT + 1), JSON)).acomplete("hello")


@pytest.mark.parametrize("kind_of_call", ["arequest", "request"])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", BOMB),
        ("deflate", zlib.compress(bytes(200_000_000), 9)),
        ("gzip, gzip", gzip.compress(BOMB, 9)),
    ],
    ids=["gzip", "deflate", "gzip twice"],
)
async def test_a_compressed_bomb_fails_at_the_limit(pool_of, coding, body, kind_of_call):
    """Scenario 59: the limit counts bytes after decompression, also within one piece of the body."""
    pool = pool_of(whole(body, {"Content-Encoding": coding}))
    headers = {"Accept-Encoding": "gzip, deflate"}
    calls = {
        "arequest": partial(pool.arequest, headers=headers),
        "request": partial(in_thread, partial(pool.request, headers=headers)),
    }
    with little_memory(), pytest.raises(AnswerTooLarge):
        await calls[kind_of_call]("GET", "/big")
    await others_go_on(pool)


async def test_a_compressed_answer_within_the_limit_is_read(pool_of):
    text = b"a short text, and again " * 10_000
    pool = pool_of(whole(gzip.compress(text), {"Content-Encoding": "gzip"}))
    response = await pool.arequest("GET", "/big", headers={"Accept-Encoding": "gzip"})
    assert response.content == text


async def test_the_body_of_a_redirect_is_limited(pool_of):
    """Scenario 59: httpx reads it before it follows the redirect."""
    pool = pool_of(endless(PIECE, {"Location": "/v1/ok"}, status=302))
    with little_memory(), pytest.raises(AnswerTooLarge):
        await pool.arequest("GET", "/big", follow_redirects=True)
    with little_memory(), pytest.raises(AnswerTooLarge):
        async with pool.aclient.stream("GET", "big", follow_redirects=True):
            pass


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", b"value" * 1000),
        (INTERIM, INTERIM * 10),
    ],
    ids=["headers", "one header", "interim responses"],
)
@pytest.mark.parametrize("call", ["acomplete", "complete"])
async def test_a_head_without_end_fails_at_its_limit(serve, configure, head, piece, call):
    """Scenario 59: interim responses can instead end at the read timeout."""
    pool = configure(serve(endless_bytes(piece, head=head)), TIMEOUTS={"read": 1.0, "total": 20.0})
    expected = "no valid HTTP" if piece[:4] != b"HTTP" else "no valid HTTP|sent nothing for 1.0 s"
    with little_memory(), pytest.raises((ProtocolError, ReadTimeout), match=expected):
        await CALLS[call](pool)


@pytest.mark.parametrize("method", ["aclient", "client"])
async def test_a_caller_that_reads_piece_by_piece_has_no_limit(pool_of, method):
    """Scenario 59: the same request may have been collected before."""
    pool = pool_of(whole(PIECE * 20, JSON))
    request = pool.aclient.build_request("GET", "big")
    with pytest.raises(AnswerTooLarge):
        await pool.aclient.send(request)
    if method == "aclient":
        response = await pool.aclient.send(request, stream=True)
        size = sum([len(piece) async for piece in response.aiter_bytes()])
    else:
        size = await asyncio.to_thread(read_in_pieces, pool)
    assert size == 20 * len(PIECE)


def read_in_pieces(pool):
    with pool.client.stream("GET", "big") as response:
        return sum(len(piece) for piece in response.iter_bytes())


@pytest.mark.kinds(HTTP1)
async def test_the_connection_of_an_answer_that_is_too_large_is_closed(serve, play, configure):
    server = serve(play(by_path(big=endless(PIECE))))
    pool = configure(server, LIMITS={"max_answer_bytes": LIMIT})
    with pytest.raises(AnswerTooLarge):
        await pool.arequest("GET", "/big")
    await server.await_until(lambda s: s.disconnects)
