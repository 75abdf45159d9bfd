"""HTTP/2: a server that ends the connection, or refuses a stream."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from llm_pool.exceptions import LLMPoolError, ProtocolError, ReadFailed
from testbed.http2 import http2, reply
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import entries_of, run_on
from tests.scenarios.http2_calls import calls, h2_pool, peer, start_call, start_calls_in_order

__all__ = ["h2_pool"]


def answer_with_goaway(last, *, after, gate="go", code=ErrorCodes.NO_ERROR):
    """Answer as ``gated``. On the first connection, send GOAWAY when request number ``after`` arrives."""

    async def answer(stream):
        await stream.body()
        if stream.request.connection == 0:
            if len(stream.peer.streams) == after:
                await stream.peer.goaway(last, code)
            await stream.wait_for(gate)
        await stream.respond(body=stream.request.target.encode())

    return answer


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM])
async def test_streams_above_the_last_one_named_are_sent_again_and_those_below_finish(serve, h2_pool, code):
    """Scenario 42: no new ones start on that connection, which closes when the last one ends."""
    server = serve(http2(answer_with_goaway(3, after=4, code=code)))
    pool = h2_pool(max_connections=2)
    running = await start_calls_in_order(pool, server, 4)
    await server.await_requests(6)
    assert not running[0].done() and not running[1].done()
    later = start_call(pool, server, target="/later")
    assert (await later).body == b"/later"
    assert [answer.body for answer in await asyncio.gather(*running[2:])] == [b"/2", b"/3"]
    server.gate("go").open()
    assert [answer.body for answer in await asyncio.gather(*running[:2])] == [b"/0", b"/1"]
    await server.await_until(lambda s: len(s.disconnects) == 1)
    assert server.disconnects[0].connection == 0
    assert [request.target for request in server.requests if request.connection == 1] == [
        "/2",
        "/3",
        "/later",
    ]
    assert pool.stats().requests == 5
    assert pool.stats().closed == {"goaway": 1}


async def test_goaway_before_anything_was_worked_on(serve, h2_pool):
    """Scenario 42: last_stream_id is 0, and every call is sent again."""
    server = serve(http2(answer_with_goaway(0, after=3)))
    pool = h2_pool(max_connections=2)
    answers = await asyncio.gather(*calls(pool, server, 3))
    assert [answer.body for answer in answers] == [b"/0", b"/1", b"/2"]
    assert [answer.marks.replays for answer in answers] == [1, 1, 1]
    assert server.connections_accepted == 2
    assert pool.stats().requests == 3


async def test_calls_to_a_server_that_always_sends_goaway_fail(serve, h2_pool):
    """Scenario 42: the call is sent again once, and then fails with an error that says why."""

    async def answer(stream):
        await stream.peer.goaway(0, ErrorCodes.ENHANCE_YOUR_CALM)

    server = serve(http2(answer))
    pool = h2_pool()
    with pytest.raises(ReadFailed, match=r"is closing the connection \(ENHANCE_YOUR_CALM\)"):
        await pool.fetch(request_to(server))
    assert len(server.requests) == 2


async def test_goaway_in_two_steps(serve, h2_pool):
    """Scenario 42: first a warning with the highest possible number, then the real last stream."""

    async def answer(stream):
        await stream.body()
        if stream.number == 5 and stream.request.connection == 0:
            await stream.peer.goaway(2**31 - 1)
            stream.server.mark("warned")
            await stream.wait_for("warned")
            await stream.peer.goaway(3)
        elif stream.request.connection == 0:
            await stream.wait_for("go")
        await stream.respond(body=stream.request.target.encode())

    server = serve(http2(answer))
    pool = h2_pool(max_connections=2)
    running = await start_calls_in_order(pool, server, 3)
    await server.await_mark("warned")
    await until(lambda: [entry.retire_reason for entry in entries_of(pool)] == ["goaway"])
    assert (await start_call(pool, server, target="/later")).body == b"/later"
    assert len(server.requests) == 4  # nothing was sent again yet
    server.gate("warned").open()
    assert (await running[2]).body == b"/2"
    server.gate("go").open()
    await asyncio.gather(*running)
    assert [request.connection for request in server.requests] == [0, 0, 0, 1, 1]


async def test_an_idle_connection_is_closed_on_goaway(serve, h2_pool):
    """Scenario 42: the next call gets a new connection, without an error."""
    server = serve(http2(reply()))
    pool = h2_pool()
    await pool.fetch(request_to(server))
    await run_on(server, peer(server).goaway(1))
    await server.await_until(lambda s: s.disconnects)
    await until(lambda: pool.stats().connections == 0)
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 2
    assert pool.stats().closed == {"goaway": 1}


async def test_goaway_right_after_the_settings(serve, h2_pool):
    """Scenario 42: it may arrive before the pool has the connection; the calls succeed on the next one."""

    async def begin(peer):
        if peer.conn.number == 0:
            await peer.goaway(0)

    server = serve(http2(reply(), begin=begin))
    pool = h2_pool(max_connections=1)
    answers = await asyncio.gather(*calls(pool, server, 5))
    assert {answer.status for answer in answers} == {200}
    assert server.connections_accepted == 2
    assert {request.connection for request in server.requests[-5:]} == {1}


async def test_a_call_whose_answer_had_begun_is_not_sent_again(serve, h2_pool):
    """Scenario 42: even if GOAWAY says that the server did not process it."""

    async def answer(stream):
        await stream.head(200, {"x": "y"})
        await stream.wait_for("head read")
        await stream.peer.goaway(0)

    server = serve(http2(answer))
    pool = h2_pool()
    exchange = await pool.open(request_to(server))
    server.gate("head read").open()
    with pytest.raises(ReadFailed, match="is closing"):
        await exchange.host_loop.arun(exchange.read)
    assert len(server.requests) == 1


def reset_first(times, code=ErrorCodes.REFUSED_STREAM):
    """Reset the first ``times`` requests to /0 with ``code``, and answer all others."""
    left = [times]

    async def answer(stream):
        await stream.body()
        if stream.request.target == "/0":
            await stream.wait_for("go")
            if left[0]:
                left[0] -= 1
                await stream.reset(code)
                return
        await stream.respond(body=stream.request.target.encode())

    return answer


async def test_a_refused_stream_is_sent_again_in_its_old_place(serve, h2_pool):
    """Scenario 43: it is sent before later calls, and counts as one call."""
    server = serve(http2(reset_first(1), settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1}))
    pool = h2_pool(max_connections=1)
    first = start_call(pool, server, target="/0")
    await server.await_requests(1)
    others = calls(pool, server, 2, first=1)
    await until(lambda: pool.stats().waiting == 2)
    server.gate("go").open()
    answer = await first
    assert (answer.body, answer.marks.replays) == (b"/0", 1)
    await asyncio.gather(*others)
    assert [request.target for request in server.requests] == ["/0", "/0", "/1", "/2"]
    assert pool.stats().requests == 3
    assert server.connections_accepted == 1


async def test_a_stream_refused_twice_is_an_error(serve, h2_pool):
    """Scenario 43: only that call fails."""
    server = serve(http2(reset_first(9)))
    server.gate("go").open()
    pool = h2_pool()
    with pytest.raises(ProtocolError, match="REFUSED_STREAM"):
        await pool.fetch(request_to(server, target="/0"))
    assert len(server.requests) == 2
    assert (await pool.fetch(request_to(server, target="/1"))).status == 200
    assert server.connections_accepted == 1


async def test_a_server_that_takes_fewer_streams_than_it_said(serve, h2_pool):
    """Scenario 46: each call gets a response, or is sent again once and fails with a clear error."""
    open_now = [0]

    async def answer(stream):
        if open_now[0] >= 2:
            await stream.reset(ErrorCodes.REFUSED_STREAM)
            return
        open_now[0] += 1
        await stream.wait_for("go")
        open_now[0] -= 1
        await stream.respond(body=b"ok")

    server = serve(http2(answer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 100}))
    pool = h2_pool(max_connections=1)
    running = calls(pool, server, 6)
    await until(lambda: sum(call.done() for call in running) == 4)
    server.gate("go").open()
    results = await asyncio.gather(*running, return_exceptions=True)
    refused = [result for result in results if isinstance(result, LLMPoolError)]
    assert len(refused) == 4 and all("REFUSED_STREAM" in str(error) for error in refused)
    assert len(server.requests) == 10
    assert server.connections_accepted == 1


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.NO_ERROR])
async def test_another_reset_is_an_error_of_that_stream_alone(serve, h2_pool, code):
    """Scenario 43: it is not sent again, even with an idempotency key; the other call continues."""
    server = serve(http2(reset_first(1, code)))
    pool = h2_pool()
    neighbour = start_call(pool, server, target="/1")
    call = start_call(pool, server, target="/0", headers={"Idempotency-Key": "1"})
    server.gate("go").open()
    with pytest.raises(ProtocolError, match=f"reset the call: {code.name}"):
        await call
    assert (await neighbour).status == 200
    assert (await pool.fetch(request_to(server, target="/2"))).status == 200
    assert [request.target for request in server.requests].count("/0") == 1
    assert server.connections_accepted == 1


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.INTERNAL_ERROR, 999])
async def test_a_reset_after_the_head_or_in_the_body_is_the_readers_error(serve, h2_pool, code):
    """Scenario 43: data that came before it can be read; the request is not sent again."""

    async def answer(stream):
        await stream.body()
        await stream.head(200)
        if stream.request.target == "/body":
            await stream.data(b"half")
        await stream.wait_for(stream.request.target)
        await stream.reset(code)

    server = serve(http2(answer))
    pool = h2_pool()
    for target, expected in (("/head", b""), ("/body", b"half")):
        exchange = await pool.open(request_to(server, target=target))
        if expected:
            assert await exchange.host_loop.arun(exchange.read) == expected
        server.gate(target).open()
        with pytest.raises(ProtocolError, match=getattr(code, "name", "999")):
            await exchange.host_loop.arun(exchange.read)
    assert len(server.requests) == 2
    assert server.connections_accepted == 1


@pytest.mark.parametrize("whole", [True, False])
async def test_an_early_answer_during_an_upload_is_delivered(serve, h2_pool, whole):
    """Scenario 43: 413 and RST_STREAM(NO_ERROR), RFC 9113, section 8.1; the connection is reused."""

    async def answer(stream):
        if stream.request.target == "/upload":
            await stream.until(lambda: stream.received)
            await stream.respond(413, b"too much")
            await stream.reset(ErrorCodes.NO_ERROR)
        else:
            await stream.respond()

    server = serve(http2(answer, take_windows=True))
    pool = h2_pool()
    body = b"x" * 5_000_000 if whole else None
    exchange = await pool.open(request_to(server, body=body, target="/upload"))

    async def send():
        while await exchange.write(b"x" * 10_000):
            pass
        await exchange.finish()

    if not whole:
        await exchange.host_loop.arun(send)
    answer = await exchange.host_loop.arun(exchange.read_all)
    assert (answer.status, answer.body) == (413, b"too much")
    assert (await pool.fetch(request_to(server, target="/", body=b""))).status == 200
    assert server.connections_accepted == 1
