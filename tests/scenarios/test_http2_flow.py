"""HTTP/2: flow control, in both directions."""

from __future__ import annotations

import asyncio

import pytest
from h2.settings import SettingCodes

from llm_pool.engine.exchange import HIGH_WATER
from llm_pool.engine.http2 import wire as http2_wire
from llm_pool.exceptions import WriteTimeout
from testbed.http2 import http2, reply
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import buffered_bytes_of, queued_bytes_of, send_window_of
from tests.scenarios.http2_calls import h2_pool, peer, random_bytes, start_call

__all__ = ["h2_pool"]

FIVE_MB = random_bytes(5_000_000)
WINDOW = SettingCodes.INITIAL_WINDOW_SIZE


async def test_a_large_upload_arrives_byte_by_byte(serve, h2_pool):
    """Scenario 44: 5 MB through windows of 64 KiB."""
    server = serve(http2(reply()))
    assert (await h2_pool().fetch(request_to(server, body=FIVE_MB))).status == 200
    assert server.requests[0].body == FIVE_MB


async def test_a_large_upload_in_pieces_waits_for_the_server(serve, h2_pool):
    """Scenario 44: ``write`` waits while the server does not read: memory stays bounded."""

    async def answer(stream):
        await stream.wait_for("read")
        stream.peer.take_windows = False
        stream.peer.h2.acknowledge_received_data(len(stream.received), stream.number)
        await stream.peer.flush()
        await stream.body()
        await stream.respond()

    server = serve(http2(answer, take_windows=True))
    pool = h2_pool()
    exchange = await pool.open(request_to(server, body=None))
    written = [0]

    async def send():
        for start in range(0, len(FIVE_MB), 50_000):
            await exchange.write(FIVE_MB[start : start + 50_000])
            written[0] = start + 50_000
        await exchange.finish()
        return await exchange.read_all()

    sending = asyncio.create_task(exchange.host_loop.arun(send))
    await server.await_until(lambda s: s.requests and len(peer(s).streams[1].received) == 65_535)
    await until(lambda: queued_bytes_of(exchange) >= 256 * 1024)
    assert written[0] < 500_000
    server.gate("read").open()
    assert (await sending).status == 200
    assert server.requests[0].body == FIVE_MB


async def test_a_large_answer_arrives_byte_by_byte(serve, h2_pool):
    """Scenario 44: 20 MB, more than all windows together."""
    body = random_bytes(20_000_000)
    server = serve(http2(reply(body=body)))
    assert (await h2_pool().fetch(request_to(server))).body == body


async def test_a_slow_reader_stops_its_own_stream_only(serve, h2_pool):
    """Scenario 44: the server has to wait, the buffer stays bounded, and other streams continue."""
    body = random_bytes(3_000_000)

    async def answer(stream):
        await stream.body()
        if stream.request.target != "/slow":
            await stream.respond(body=body)
            return
        await stream.head(200)
        for start in range(0, len(body), 10_000):
            if send_window_of(stream) < 10_000:
                with stream.server.change():
                    stream.server.stopped_at = start
            await stream.data(body[start : start + 10_000], end=start + 10_000 >= len(body))

    server = serve(http2(answer))
    pool = h2_pool()
    exchange = await pool.open(request_to(server, target="/slow"))
    await server.await_until(lambda s: getattr(s, "stopped_at", 0))
    for _ in range(4):
        assert (await pool.fetch(request_to(server, target="/quick"))).body == body
    assert buffered_bytes_of(exchange) < HIGH_WATER + http2_wire.STREAM_WINDOW
    assert server.stopped_at < 2 * (HIGH_WATER + http2_wire.STREAM_WINDOW)
    assert (await exchange.host_loop.arun(exchange.read_all)).body == body
    assert server.connections_accepted == 1


async def test_every_piece_is_a_sign_of_life(serve, h2_pool, each_loop):
    """Scenario 37: over HTTP/2 too, a body may take longer than the read timeout."""

    async def drip(stream):
        await stream.head(200)
        for number in range(20):
            await asyncio.sleep(0.1)
            await stream.data(b"x", end=number == 19)

    whole = await h2_pool().fetch(request_to(serve(http2(drip)), read=1.5))
    assert whole.body == b"x" * 20


async def test_a_slow_reader_causes_no_read_timeout(serve, h2_pool, each_loop):
    """Scenario 37: over HTTP/2 as over HTTP/1.1, the read timeout counts only while the caller waits."""

    async def answer(stream):
        await stream.head(200)
        await stream.data(b"a")
        await stream.wait_for("rest")
        await stream.data(b"bc", end=True)

    server = serve(http2(answer))
    exchange = await h2_pool().open(request_to(server, read=0.5))
    arun = exchange.host_loop.arun
    assert await arun(exchange.read) == b"a"
    await asyncio.sleep(0.8)  # longer than the read timeout
    server.gate("rest").open()
    assert await arun(exchange.read) == b"bc"


async def test_many_unread_streams_do_not_stop_the_connection(serve, h2_pool):
    """Scenario 44: the connection's window is enlarged again whether or not the streams are read."""
    body = random_bytes(700_000)
    server = serve(http2(reply(body=body)))
    pool = h2_pool(max_streams_per_connection=60)
    slow = [await pool.open(request_to(server)) for _ in range(45)]  # 45 x 512 KiB: above CONNECTION_WINDOW
    assert (await pool.fetch(request_to(server))).body == body
    for exchange in slow:
        assert (await exchange.host_loop.arun(exchange.read_all)).body == body
    assert server.connections_accepted == 1


async def test_answers_of_cancelled_calls_cost_no_window(serve, h2_pool):
    """Scenario 44: 60 responses, each closed after its head, are more than the connection's window."""
    body = random_bytes(400_000)
    server = serve(http2(reply(body=body)))
    pool = h2_pool()
    for _ in range(60):
        (await pool.open(request_to(server))).close_threadsafe()
    assert (await pool.fetch(request_to(server))).body == body
    assert server.connections_accepted == 1


async def test_a_window_of_zero_is_waited_out(serve, h2_pool):
    """Scenario 44: no byte is sent before the server enlarges the window; then one for each WINDOW_UPDATE."""

    async def answer(stream):
        if stream.request.target == "/wait":
            stream.server.mark("head")
            for _ in range(len(b"{}")):
                assert not stream.complete
                await stream.wait_for("take")
                stream.peer.h2.increment_flow_control_window(1, stream.number)
                await stream.peer.flush()
        await stream.body()
        await stream.respond()

    server = serve(http2(answer, settings={WINDOW: 0}, take_windows=True))
    pool = h2_pool()
    await pool.fetch(request_to(server, body=b""))
    waiting = start_call(pool, server, target="/wait")
    await server.await_mark("head")
    assert (await pool.fetch(request_to(server, body=b""))).status == 200
    assert len(peer(server).streams[3].received) == 0
    server.gate("take").admit()
    await server.await_until(lambda s: len(peer(s).streams[3].received) == 1)
    server.gate("take").open()
    assert (await waiting).status == 200


async def test_a_window_of_zero_ends_at_the_write_timeout(serve, h2_pool):
    """Scenario 44: only that call fails."""

    async def answer(stream):
        await stream.body()
        await stream.respond()

    server = serve(http2(answer, settings={WINDOW: 0}))
    pool = h2_pool()
    await pool.fetch(request_to(server, body=b""))
    stuck = start_call(pool, server, write=1.5)  # longer than the next call: the connection is not silent
    await server.await_requests(2)
    await pool.fetch(request_to(server, body=b""))
    with pytest.raises(WriteTimeout, match=r"accepted nothing of the request for 1.5 s"):
        await stuck
    await server.await_until(lambda s: peer(s).streams[3].reset_by_client is not None)
    await pool.fetch(request_to(server, body=b""))
    assert server.connections_accepted == 1


async def test_an_upload_that_ends_late_has_its_whole_read_timeout_left(serve, h2_pool):
    """Scenario 44: the read timeout begins when the request is complete, not when the upload begins."""

    async def answer(stream):
        if stream.number > 1:
            await asyncio.sleep(2.0)
            stream.peer.h2.increment_flow_control_window(10, stream.number)
            await stream.peer.flush()
            await stream.body()
            await asyncio.sleep(2.0)  # ends later than 3.5 s from the start
        await stream.respond()

    server = serve(http2(answer, settings={WINDOW: 0}))
    pool = h2_pool()
    await pool.fetch(request_to(server, body=b""))
    assert (await pool.fetch(request_to(server, write=3.5, read=3.5))).status == 200


async def test_a_window_lowered_below_what_is_on_its_way(serve, h2_pool):
    """Scenario 44: it is negative for a while (RFC 9113, section 6.9.2), and no byte too many is sent."""
    body = random_bytes(200_000)

    async def answer(stream):
        await stream.until(lambda: len(stream.received) == 65_535)
        stream.peer.h2.increment_flow_control_window(10_000_000)
        await stream.peer.change_settings({WINDOW: 10, SettingCodes.MAX_FRAME_SIZE: 40_000})
        assert stream.peer.h2.remote_flow_control_window(stream.number) == 10 - 65_535
        for _ in range(3):
            stream.peer.h2.increment_flow_control_window(30_000, stream.number)
            await stream.peer.flush()
        await stream.until(lambda: len(stream.received) == 10 + 90_000)
        await stream.peer.change_settings({WINDOW: 1_000_000})
        await stream.body()
        await stream.respond()

    server = serve(http2(answer, take_windows=True))
    assert (await h2_pool().fetch(request_to(server, body=body))).status == 200
    assert server.requests[0].body == body


async def test_uploads_share_the_connection(serve, h2_pool):
    """Scenario 44: a second upload does not wait for the end of the first."""

    async def answer(stream):
        if stream.number == 3:
            first = stream.peer.streams[1]
            await stream.until(lambda: len(first.received) == 65_535)  # the whole window of the connection
            stream.peer.h2.increment_flow_control_window(200_000)
            await stream.peer.flush()
            await stream.until(lambda: len(first.received) + len(stream.received) == 265_535)
            assert 80_000 < len(stream.received) < 120_000
            stream.peer.h2.increment_flow_control_window(2_000_000)
            await stream.peer.flush()
        await stream.body()
        await stream.respond()

    body = random_bytes(1_000_000)
    server = serve(http2(answer, settings={WINDOW: 10_000_000}, take_windows=True))
    pool = h2_pool()
    await asyncio.gather(*(start_call(pool, server, body=body) for _ in range(2)))
    assert [request.body for request in server.requests] == [body, body]
