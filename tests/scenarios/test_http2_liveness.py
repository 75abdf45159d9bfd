"""HTTP/2: dead connections, calls that time out or are cancelled, close and drain."""

from __future__ import annotations

import asyncio
import time

import pytest
from h2.errors import ErrorCodes

from llm_pool.engine.http2 import heartbeat
from llm_pool.exceptions import PoolClosed, ReadFailed, ReadTimeout, TotalTimeout
from testbed.behaviours import per_connection
from testbed.http2 import http2, reply
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import entries_of, has_stopped_writing, ledger_of, watch_pings
from tests.scenarios.http2_calls import calls, gated, h2_pool, peer, random_bytes, start_call

__all__ = ["h2_pool"]

DETECTION_SECONDS = 6.0
"""Seconds within which a dead connection must be found. The quick heartbeat needs 1.7."""


@pytest.fixture
def quick_heartbeat(monkeypatch):
    shorten_heartbeat(monkeypatch)


def shorten_heartbeat(monkeypatch):
    """From the next request on, send PINGs soon. A slow machine still has 1.5 s to answer one."""
    monkeypatch.setattr(heartbeat, "PING_AFTER", 0.2)
    monkeypatch.setattr(heartbeat, "PING_SECONDS", 1.5)


async def ignore_pings(peer):
    """Answer no PING on this connection."""
    peer.h2.ignores_pings = True


async def silence(stream):
    await stream.until(lambda: False)


async def silence_after_the_first(stream):
    if stream.number > 1:
        await silence(stream)
    await stream.respond()


dead = http2(silence, begin=ignore_pings)
dying = http2(silence_after_the_first, begin=ignore_pings)


async def test_a_dead_connection_is_found_by_ping(serve, h2_pool, monkeypatch):
    """Scenario 45: all its calls fail long before the read timeout, and it is not used again."""
    server = serve(per_connection(dying, http2(reply())))
    pool = h2_pool(read=60.0)
    await pool.fetch(request_to(server))  # so that the server's SETTINGS frames do not arrive after a PING
    shorten_heartbeat(monkeypatch)
    began = time.monotonic()
    failed = await asyncio.gather(*calls(pool, server, 3), return_exceptions=True)
    assert time.monotonic() - began < DETECTION_SECONDS
    assert all(isinstance(error, ReadFailed) and "PING" in str(error) for error in failed)
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 2
    await server.await_until(lambda s: s.connections_open == 1)
    assert peer(server).pings == 1
    assert pool.stats().closed == {"unclean": 1}


async def test_a_connection_found_dead_serves_no_waiter(serve, h2_pool, quick_heartbeat):
    """Scenario 45: waiters are served on a new connection."""
    server = serve(per_connection(dead, http2(reply())))
    pool = h2_pool(max_connections=1, max_streams_per_connection=2)
    running = calls(pool, server, 5)
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [isinstance(result, ReadFailed) for result in results] == [True, True, False, False, False]
    assert server.peak_open == 1


async def test_a_server_that_takes_its_time_is_not_dead(serve, h2_pool, quick_heartbeat):
    """Scenario 45: it answers PINGs, and later the call."""

    async def answer(stream):
        await stream.until(lambda: stream.peer.pings >= 3)
        await stream.respond()

    server = serve(http2(answer))
    assert (await h2_pool().fetch(request_to(server))).status == 200
    assert server.connections_accepted == 1


async def test_an_idle_connection_is_not_pinged(serve, h2_pool, quick_heartbeat, monkeypatch):
    """Scenario 45: only a connection with open streams is pinged."""
    waited_for = []  # the open streams at each PING; a slow call can cause one
    watch_pings(monkeypatch, waited_for.append)
    server = serve(http2(reply()))
    pool = h2_pool()
    await pool.fetch(request_to(server))
    await asyncio.sleep(3 * heartbeat.PING_AFTER)  # no event shows that no PING is sent
    assert 0 not in waited_for
    assert (await pool.fetch(request_to(server))).status == 200


async def test_calls_that_time_out_one_after_another_find_the_dead_connection(
    serve, h2_pool, quick_heartbeat
):
    """Scenario 45: each call ends before a PING is sent, but the silence lasts over all of them."""
    server = serve(per_connection(dead, http2(reply())))
    pool = h2_pool()
    began = time.monotonic()
    answer = None
    while answer is None and time.monotonic() - began < DETECTION_SECONDS:
        try:
            async with asyncio.timeout(0.1):
                answer = await pool.fetch(request_to(server))
        except (TimeoutError, ReadFailed):
            continue
    assert answer is not None and answer.status == 200
    assert server.connections_accepted == 2


async def test_a_dead_connection_without_calls_is_found_too(serve, h2_pool, monkeypatch):
    """Scenario 45: its only call was cancelled; the next call must not get the connection."""
    server = serve(per_connection(dying, http2(reply())))
    pool = h2_pool()
    await pool.fetch(request_to(server))
    shorten_heartbeat(monkeypatch)
    call = start_call(pool, server)
    await server.await_requests(2)
    call.cancel()
    await server.await_until(lambda s: s.disconnects)
    assert peer(server).pings == 1
    assert (await pool.fetch(request_to(server))).status == 200


@pytest.mark.parametrize(
    ("timeouts", "error"), [({"read": 0.5}, ReadTimeout), ({"total": 1.0}, TotalTimeout)]
)
async def test_a_connection_silent_through_a_whole_timeout_is_not_used_again(serve, h2_pool, timeouts, error):
    """Scenario 45: it may be dead; a dial costs less than another lost call. Its other calls go on."""

    async def answer(stream):
        if stream.request.target == "/silent":
            await stream.until(lambda: False)
        if stream.request.target == "/patient":
            await stream.wait_for("go")
        await stream.respond()

    server = serve(per_connection(http2(answer), http2(reply())))
    pool = h2_pool()
    await pool.fetch(request_to(server))  # the settings of both sides are acknowledged
    patient = start_call(pool, server, target="/patient")
    await server.await_requests(2)
    with pytest.raises(error):
        await pool.fetch(request_to(server, target="/silent", **timeouts))
    await server.await_until(lambda s: peer(s).streams[5].reset_by_client == ErrorCodes.CANCEL)
    assert (await pool.fetch(request_to(server, read=2.0))).status == 200
    assert server.connections_accepted == 2
    server.gate("go").open()
    assert (await patient).status == 200
    await server.await_until(lambda s: s.connections_open == 1)


async def test_a_read_timeout_on_a_connection_that_talks_ends_that_stream_only(serve, h2_pool):
    """Scenario 45: the server is alive, only the one call was too slow."""

    async def answer(stream):
        if stream.request.target == "/silent":
            await stream.until(lambda: False)
        await stream.head(200)
        while stream.peer.streams[1].reset_by_client is None:
            await stream.data(b"x")
            await asyncio.sleep(0.02)
        await stream.data(b"", end=True)

    server = serve(http2(answer))
    pool = h2_pool()
    silent = start_call(pool, server, target="/silent", read=1.5)  # the other stream gets data long before
    await server.await_requests(1)
    talking = start_call(pool, server)
    with pytest.raises(ReadTimeout):
        await silent
    assert (await talking).status == 200
    assert (await pool.fetch(request_to(server, read=2.0))).status == 200
    assert server.connections_accepted == 1


async def test_a_lost_connection_fails_its_calls_and_no_others(serve, h2_pool):
    """Scenario 45: by RST; waiting calls are served on another connection."""

    async def answer(stream):
        await stream.wait_for("go")
        if stream.request.connection == 0:
            await stream.peer.conn.reset()
        await stream.respond()

    server = serve(http2(answer))
    pool = h2_pool(max_connections=2, max_streams_per_connection=2)
    running = calls(pool, server, 6)
    await server.await_requests(4)
    server.gate("go").open()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert sum(isinstance(result, ReadFailed) for result in results) == 2
    assert sum(getattr(result, "status", 0) == 200 for result in results) == 4


# Cancellation.


async def _whole(pool, server, target):
    return await pool.fetch(request_to(server, target=target, body=random_bytes(300_000)))


STEPS = {
    "before the settings": "settings",
    "while uploading": "upload",
    "before the head": "head",
    "in the body": "body",
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_cancelled_call_resets_its_stream_and_the_connection_lives_on(serve, h2_pool, step):
    """Scenario 45: cancelled at each step; the other call on the connection continues."""

    async def begin(peer):
        if step == "settings":
            peer.server.mark("settings")
            await peer.conn.wait_for("settings")

    async def answer(stream):
        if stream.request.target == "/other":
            await stream.wait_for("other")
        elif step == "upload":
            await stream.until(lambda: stream.received)
            stream.server.mark(step)
            await stream.until(lambda: False)
        elif step == "head":
            await stream.body()
            stream.server.mark(step)
            await stream.until(lambda: False)
        elif step == "body":
            await stream.head(200)
            while True:
                await stream.data(b"x" * 1000)
                stream.server.mark(step)
        await stream.respond()

    windows = step == "upload"
    server = serve(http2(answer, begin=begin, take_windows=windows))
    pool = h2_pool()
    other = start_call(pool, server, target="/other", body=b"")
    victim = asyncio.create_task(_whole(pool, server, "/victim"))
    await server.await_mark(step)
    victim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await victim
    server.gate("settings").open()
    await server.await_until(
        lambda s: (
            any(stream.reset_by_client == ErrorCodes.CANCEL for stream in peer(s).streams.values())
            or (step == "settings" and s.requests)
        )
    )
    await until(lambda: not server.requests or pool.stats().in_use == 1)
    server.gate("other").open()
    assert (await other).status == 200
    assert (await pool.fetch(request_to(server, target="/other", body=b""))).status == 200
    assert server.connections_accepted == 1


async def test_a_call_cancelled_in_the_queue_leaves_no_trace(serve, h2_pool):
    """Scenario 45: nothing is sent to the server, and the next call in the queue is served."""
    server = serve(http2(gated("go")))
    pool = h2_pool(max_connections=1, max_streams_per_connection=1)
    running = calls(pool, server, 3)
    await server.await_requests(1)
    await until(lambda: pool.stats().waiting == 2)
    running[1].cancel()
    await until(lambda: pool.stats().waiting == 1)
    server.gate("go").open()
    await asyncio.gather(running[0], running[2])
    assert [request.target for request in server.requests] == ["/0", "/2"]


async def test_a_stream_that_is_not_read_to_its_end_is_reset(serve, h2_pool):
    """Scenario 45: its connection is reused."""

    async def answer(stream):
        await stream.head(200)
        while True:
            await stream.data(b"x" * 10_000)

    server = serve(per_connection(http2(answer)))
    pool = h2_pool()
    for _ in range(3):
        exchange = await pool.open(request_to(server))
        await exchange.host_loop.arun(exchange.read)
        exchange.close_threadsafe()
    await server.await_until(
        lambda s: [stream.reset_by_client for stream in peer(s).streams.values()] == [ErrorCodes.CANCEL] * 3
    )
    await until(lambda: pool.stats().idle == 1)
    assert server.connections_accepted == 1


# Close and drain.


async def test_close_sends_goaway_and_fails_running_calls(serve, h2_pool):
    """Scenario 51: GOAWAY, and a clear error for each call."""
    server = serve(http2(gated("go")))
    pool = h2_pool()
    server.gate("go").admit(1)
    await asyncio.gather(*calls(pool, server, 1))  # now no frame is in flight that would cause an RST
    running = calls(pool, server, 3)
    await server.await_requests(4)
    await pool.aclose()
    errors = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(error, PoolClosed) for error in errors)
    await server.await_until(lambda s: s.connections_open == 0)
    assert len(peer(server).goaways) == 1


async def test_close_does_not_wait_for_a_server_that_takes_nothing(serve, h2_pool):
    """Scenario 51: with an upload stuck in the socket, it returns at once."""

    async def answer(stream):
        stream.peer.conn.pause_reading()
        stream.server.mark("stuck")
        await stream.until(lambda: False)

    async def begin(peer):
        peer.h2.increment_flow_control_window(100_000_000)

    server = serve(http2(answer, begin=begin, settings={4: 100_000_000}))
    pool = h2_pool()
    upload = start_call(pool, server, body=bytes(30_000_000))
    await server.await_mark("stuck")
    [entry] = entries_of(pool)
    await until(lambda: has_stopped_writing(entry.connection))
    began = time.monotonic()
    await pool.aclose()
    assert time.monotonic() - began < 1.5  # a close that waits takes 2 s
    with pytest.raises(PoolClosed):
        await upload


async def test_drain_moves_new_calls_to_a_new_connection(serve, h2_pool):
    """Scenario 51: running calls finish on the old connection, which then closes."""
    server = serve(http2(gated("go")))
    pool = h2_pool()
    running = calls(pool, server, 2)
    await server.await_requests(2)
    drained = asyncio.create_task(pool.adrain(5.0))
    await until(lambda: ledger_of(pool).draining == 1)
    later = start_call(pool, server)
    await server.await_requests(3)
    server.gate("go").open()
    await asyncio.gather(*running, later)
    assert await drained
    assert [request.connection for request in server.requests] == [0, 0, 1]
