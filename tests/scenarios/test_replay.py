"""Which requests are sent again, and which never are."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from llm_pool.exceptions import LLMPoolError, ProtocolError, ReadFailed
from llm_pool.transports.transport import AsyncTransport
from testbed.behaviours import (
    close,
    fin,
    hold,
    per_connection,
    raw,
    reply,
    reset,
    respond,
    stall,
    steps,
    until,
)
from tests.fixtures.engine import request_to
from tests.fixtures.internals import hide_unread_input

KEY = {"Idempotency-Key": "1"}


@pytest.fixture
def close_comes_after_look(monkeypatch):
    """The server closes after the look at the socket, and before the request is written."""
    hide_unread_input(monkeypatch)


def answer_then(*scripts):
    """The first connection answers once and continues with these steps; all others answer "hello"."""
    return per_connection(steps(reply(body=b"hello"), *scripts), reply(body=b"hello"))


def sent_by(server):
    """Return the number of the connection of each request."""
    return [request.connection for request in server.requests]


# Requests that were written, without a response.


@pytest.mark.parametrize("end", [close, fin, reset])
async def test_a_request_that_was_written_is_not_sent_again(serve, engine_pool, each_loop, end):
    """Scenario 30: the server may have acted on it."""
    server, pool = serve(answer_then(raw(), end, hold)), engine_pool()
    await pool.fetch(request_to(server))
    with pytest.raises(ReadFailed, match="closed the connection without an answer"):
        await pool.fetch(request_to(server))
    assert sent_by(server) == [0, 0]


@pytest.mark.parametrize("end", [close, fin, reset])
async def test_with_an_idempotency_key_it_is_sent_again(serve, engine_pool, each_loop, end):
    """Scenario 30: the key lets the server recognize a repeated call."""
    server, pool = serve(answer_then(raw(), end, hold)), engine_pool()
    await pool.fetch(request_to(server))
    whole = await pool.fetch(request_to(server, b'{"n": 1}', headers=KEY))
    assert (whole.body, whole.marks.replays) == (b"hello", 1)
    assert sent_by(server) == [0, 0, 1]
    assert [request.body for request in server.requests[1:]] == [b'{"n": 1}'] * 2


async def test_it_is_sent_again_until_a_fresh_connection_fails_too(serve, engine_pool, each_loop):
    """Scenario 30: once on each reused connection, and once on a fresh one."""
    server = serve(
        per_connection(*[steps(raw(), until("all"), respond(), raw(), close)] * 3, steps(raw(), close))
    )
    pool = engine_pool()
    calls = [pool.fetch(request_to(server)) for _ in range(3)]
    await complete_together(server, calls)
    with pytest.raises(ReadFailed):
        await pool.fetch(request_to(server, headers=KEY))
    assert sorted(sent_by(server)) == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("headers", [{}, KEY], ids=["no key", "key"])
@pytest.mark.parametrize("end", [close, fin, reset])
async def test_a_fresh_connection_that_fails_is_not_tried_again(serve, engine_pool, each_loop, end, headers):
    """Scenario 30: the next connection would fail for the same reason."""
    server, pool = serve(steps(raw(), end, hold)), engine_pool()
    with pytest.raises(ReadFailed):
        await pool.fetch(request_to(server, headers=headers))
    assert (server.connections_accepted, len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    ],
    ids=["one byte", "half a head", "an interim response", "half a body"],
)
async def test_what_was_answered_in_part_is_not_sent_again(serve, engine_pool, each_loop, answer):
    """Scenario 30: not even with an idempotency key."""
    server, pool = serve(answer_then(raw(answer), close)), engine_pool()
    await pool.fetch(request_to(server))
    with pytest.raises(ProtocolError, match="closed the connection"):
        await pool.fetch(request_to(server, headers=KEY))
    assert sent_by(server) == [0, 0]


async def test_what_timed_out_is_not_sent_again(serve, engine_pool, each_loop):
    """Scenario 30: not even with an idempotency key: a replay would double the timeout."""
    server, pool = serve(answer_then(stall)), engine_pool()
    await pool.fetch(request_to(server))
    with pytest.raises(LLMPoolError, match="sent nothing"):
        await pool.fetch(request_to(server, headers=KEY, read=0.2))
    await server.await_requests(2)
    assert sent_by(server) == [0, 0]


# The server closes just before we write: our loop is blocked until it has closed.


async def test_a_request_that_went_into_a_closed_connection_is_not_sent_again(
    serve, engine_pool, server_loop, close_comes_after_look
):
    """Scenario 30: the kernel accepted it, and may have delivered it before the server closed."""
    server, pool = serve(answer_then(until("end"), close)), engine_pool()
    await pool.fetch(request_to(server))
    close_while_loop_is_blocked(server)
    with pytest.raises(ReadFailed):
        await pool.fetch(request_to(server))
    assert sent_by(server) == [0]


async def test_a_request_with_an_idempotency_key_is_sent_again(
    serve, engine_pool, server_loop, close_comes_after_look
):
    """Scenario 30: the caller gets no error."""
    server, pool = serve(answer_then(until("end"), close)), engine_pool()
    await pool.fetch(request_to(server))
    close_while_loop_is_blocked(server)
    whole = await pool.fetch(request_to(server, headers=KEY))
    assert (whole.body, whole.marks.replays) == (b"hello", 1)
    assert sent_by(server) == [0, 1]


async def test_a_request_of_which_the_kernel_took_nothing_is_sent_again(
    serve, engine_pool, server_loop, close_comes_after_look
):
    """Scenario 30: without a key and without an error, even if several connections are dead."""
    dying = steps(raw(), until("all"), respond(), until("end"), reset)
    server = serve(per_connection(*[dying] * 3, reply(body=b"hello")))
    pool = engine_pool()
    await complete_together(server, [pool.fetch(request_to(server)) for _ in range(3)])
    server.gate("end").open()
    server.wait_until(lambda s: s.connections_open == 0)
    whole = await pool.fetch(request_to(server))
    assert (whole.body, whole.marks.replays) == (b"hello", 3)
    assert len(server.requests) == 4


# Bodies that cannot be rewound.


async def test_a_body_that_cannot_be_rewound_is_not_sent_again(serve, engine_pool, each_loop):
    """Scenario 31: its pieces cannot be read again, so an idempotency key does not help."""
    server, pool = serve(answer_then(raw(), close)), engine_pool()
    taken = []

    async def pieces():
        for piece in (b"one", b"two"):
            taken.append(piece)
            yield piece

    async with httpx.AsyncClient(transport=AsyncTransport(pool)) as client:
        await client.post(server.url)
        with pytest.raises(httpx.ReadError):
            await client.post(server.url, content=pieces(), headers=KEY)
    assert sent_by(server) == [0, 0]
    assert server.requests[1].body == b"onetwo"
    assert taken == [b"one", b"two"]


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen before", "found by the write"])
async def test_a_streamed_body_is_sent_again_if_no_byte_was_sent(
    serve, engine_pool, server_loop, monkeypatch, is_seen
):
    """Scenario 31: no byte was sent on the dead connection, so the whole body can still be sent."""
    if not is_seen:
        hide_unread_input(monkeypatch)
    server, pool = serve(answer_then(until("end"), reset)), engine_pool()
    await pool.fetch(request_to(server))
    close_while_loop_is_blocked(server)
    exchange = await pool.open(request_to(server, None))
    assert await exchange.write(b"one")
    await exchange.finish()
    await exchange.head()
    assert (await exchange.read_all()).body == b"hello"
    assert [request.body for request in server.requests] == [b"{}", b"one"]


def close_while_loop_is_blocked(server):
    """Let the server end its connection, and block our loop until it has."""
    server.gate("end").open()
    server.wait_until(lambda s: s.connections_open == 0)  # its socket is closed too


async def complete_together(server, calls):
    """Run calls that have a connection each and end together."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await server.await_until(lambda s: s.gate("all").reached == len(tasks))
    server.gate("all").open()
    await asyncio.gather(*tasks)
