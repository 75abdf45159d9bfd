"""HTTP/2: how many streams a connection carries, and when another is dialed."""

from __future__ import annotations

import asyncio
import time

import pytest
from h2.settings import SettingCodes

from llm_pool.engine.config import TLS
from llm_pool.exceptions import PoolTimeout
from testbed.behaviours import respond, steps
from testbed.http2 import http2, offering_http2, reply
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import run_on
from tests.scenarios.http2_calls import calls, gated, h2_pool, peer, peers, start_call

__all__ = ["h2_pool"]

MAX_STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS


async def test_calls_above_the_stream_limit_dial_again_and_then_queue_in_order(serve, h2_pool):
    """Scenario 41: two streams on each of two connections; the other calls wait their turn."""
    server = serve(http2(gated("go"), settings={MAX_STREAMS: 2}))
    pool = h2_pool(max_connections=2)
    server.gate("go").admit()
    await pool.fetch(request_to(server))
    running = calls(pool, server, 8)
    await server.await_requests(5)
    await until(lambda: pool.stats().waiting == 4)
    assert server.connections_accepted == 2
    for number in range(4):
        server.gate("go").admit()
        await server.await_requests(6 + number)
    server.gate("go").open()
    assert {answer.status for answer in await asyncio.gather(*running)} == {200}
    assert [request.target for request in server.requests[5:]] == ["/4", "/5", "/6", "/7"]
    assert [peer(server, number).peak for number in (0, 1)] == [2, 2]
    assert (server.peak_open, server.marks("excess")) == (2, 0)


async def test_a_cold_burst_that_is_more_than_the_server_takes_keeps_its_order(
    serve, engine_pool, certificates, ca_file
):
    """Scenario 41: calls sent before the limit is known are refused, and sent again in their order."""
    server = serve(
        http2(gated("go"), settings={MAX_STREAMS: 2}, late_settings=True),
        tls=offering_http2(certificates),
        before_handshake=lambda: server.gate("tls").passage(),
    )
    pool = engine_pool(tls=TLS(ca_file=ca_file), max_connections=1)
    running = calls(pool, server, 8)
    await until(lambda: pool.stats().waiting == 8)
    server.gate("tls").open()
    await server.await_requests(2)
    await until(lambda: pool.stats().waiting == 6)
    for number in range(6):
        server.gate("go").admit()
        await server.await_requests(3 + number)
    server.gate("go").open()
    assert {answer.status for answer in await asyncio.gather(*running)} == {200}
    assert [request.target for request in server.requests] == [f"/{number}" for number in range(8)]
    assert server.marks("excess") == 6
    assert pool.stats().requests == 8
    assert peer(server).peak == 2


async def test_a_lowered_limit_is_obeyed(serve, h2_pool):
    """Scenario 41: running calls continue; no call starts until fewer than the new limit are running."""
    server = serve(http2(gated("go"), settings={MAX_STREAMS: 10}))
    pool = h2_pool(max_connections=1)
    running = calls(pool, server, 4)
    await server.await_requests(4)
    await _change_settings(server, {MAX_STREAMS: 2})
    later = calls(pool, server, 2, first=4)
    await until(lambda: pool.stats().waiting == 2)
    server.gate("go").admit(2)
    await until(lambda: sum(call.done() for call in running) == 2)
    assert len(server.requests) == 4
    assert pool.stats().waiting == 2
    server.gate("go").admit(1)
    await server.await_requests(5)
    server.gate("go").open()
    await asyncio.gather(*running, *later)
    assert server.marks("excess") == 0
    assert server.connections_accepted == 1


async def test_a_raised_stream_limit_serves_waiters_at_once(serve, h2_pool):
    """Scenario 41: no stream has to end first."""
    server = serve(http2(gated("go"), settings={MAX_STREAMS: 1}))
    pool = h2_pool(max_connections=1)
    running = calls(pool, server, 4)
    await server.await_requests(1)
    await until(lambda: pool.stats().waiting == 3)
    await _change_settings(server, {MAX_STREAMS: 3})
    await server.await_requests(3)
    await until(lambda: pool.stats().waiting == 1)
    server.gate("go").open()
    await asyncio.gather(*running)
    assert peer(server).peak == 3


async def test_calls_wait_while_the_stream_limit_is_0(serve, h2_pool):
    """Scenario 41: a server may accept no streams for a while; the pool does not dial again and again."""
    server = serve(http2(reply(), settings={MAX_STREAMS: 1}))
    pool = h2_pool(max_connections=1)
    await pool.fetch(request_to(server))
    await _change_settings(server, {MAX_STREAMS: 0})
    waiting = start_call(pool, server)
    await until(lambda: pool.stats().waiting == 1)
    assert len(server.requests) == 1
    await _change_settings(server, {MAX_STREAMS: 1})
    assert (await waiting).status == 200
    assert server.connections_accepted == 1


async def test_a_new_connection_without_a_stream_limit_replaces_the_old_limit(
    serve, engine_pool, certificates, ca_file
):
    """Scenario 41: a new connection without a limit replaces the limit of the earlier ones."""
    scripts = iter([{MAX_STREAMS: 1}, {}])

    async def script(conn):
        await http2(gated("go"), settings=next(scripts))(conn)

    server = serve(script, tls=offering_http2(certificates))
    pool = engine_pool(tls=TLS(ca_file=ca_file), max_connections=1)
    server.gate("go").admit()
    await pool.fetch(request_to(server))
    await pool.adrain()
    running = calls(pool, server, 5)
    await server.await_requests(6)
    server.gate("go").open()
    await asyncio.gather(*running)
    assert peer(server, 1).peak == 5


async def test_a_cold_burst_shares_the_connection_that_is_being_dialed(
    serve, engine_pool, certificates, ca_file
):
    """Scenario 41: twenty calls, one handshake."""
    server = serve(
        http2(reply()),
        tls=offering_http2(certificates),
        before_handshake=lambda: server.gate("tls").passage(),
    )
    pool = engine_pool(tls=TLS(ca_file=ca_file), max_connections=20, max_streams_per_connection=32)
    running = calls(pool, server, 20)
    await server.gate("tls").await_reached()
    await until(lambda: pool.stats().waiting == 20)
    assert pool.stats().dialing == 1
    server.gate("tls").open()
    await asyncio.gather(*running)
    assert server.connections_accepted == 1


@pytest.mark.parametrize("streams", [100, 32])
async def test_500_calls_at_once_on_a_cold_pool_need_no_more_than_4_connections(
    serve, engine_pool, certificates, ca_file, streams
):
    """Scenario 41: counted at the server; each call gets a response, in the order they came."""
    server = serve(
        http2(reply(body=b"{}"), settings={MAX_STREAMS: 100}),
        tls=offering_http2(certificates),
        before_handshake=lambda: server.gate("tls").passage(),
    )
    pool = engine_pool(
        tls=TLS(ca_file=ca_file), max_connections=4, max_streams_per_connection=streams, pool=30.0
    )
    running = calls(pool, server, 500)
    # All calls queue before the dial: a late call could find a free stream and start before an earlier one.
    await until(lambda: pool.stats().waiting == 500)
    server.gate("tls").open()
    answers = await asyncio.gather(*running)
    assert {answer.status for answer in answers} == {200}
    assert sorted(int(request.target[1:]) for request in server.requests) == list(range(500))
    assert server.connections_accepted <= 4
    assert all(end.peak <= streams for end in peers(server))
    # A call looks at a new connection over TLS before it has it (see ``checkout``). Meanwhile calls that came
    # later can pass it, but no more than have a stream at one time.
    order = sorted(range(500), key=lambda number: answers[number].marks.acquired)
    assert all(abs(place - number) < 4 * streams for place, number in enumerate(order))
    assert server.marks("excess") == 0


async def test_a_server_without_http2_gets_as_many_connections_as_the_burst_needs(
    serve, engine_pool, certificates, ca_file
):
    """Scenario 41: the calls expected to share a connection, and it carries one call at a time."""

    async def hold(conn):
        await conn.read_request()
        await conn.wait_for("go")

    server = serve(steps(hold, respond()), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=ca_file), max_connections=10)
    running = calls(pool, server, 12)
    await asyncio.to_thread(server.gate("go").wait_reached, 10)
    await until(lambda: pool.stats().waiting == 2)
    server.gate("go").open()
    await asyncio.gather(*running)
    assert server.connections_accepted == 10


async def test_a_wait_for_a_stream_ends_at_the_pool_timeout(serve, h2_pool):
    """Scenario 41: the call is in the pool's queue, like a call that waits for a connection."""
    server = serve(http2(gated("go"), settings={MAX_STREAMS: 1}))
    pool = h2_pool(max_connections=1)
    running = start_call(pool, server)
    await server.await_requests(1)
    began = time.monotonic()
    with pytest.raises(PoolTimeout, match="in use 1"):
        await pool.fetch(request_to(server, pool=0.1))
    assert time.monotonic() - began < 2
    server.gate("go").open()
    await running


async def test_a_connection_out_of_stream_numbers_is_replaced(serve, h2_pool, monkeypatch):
    """Scenario 41: the caller gets no error."""
    monkeypatch.setattr("llm_pool.engine.http2.connection.MAX_NUMBER", 5)
    server = serve(http2(reply()))
    pool = h2_pool(max_connections=1)
    for _ in range(5):
        assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 2
    assert [request.connection for request in server.requests] == [0, 0, 0, 1, 1]
    assert pool.stats().requests == 5


async def _change_settings(server, settings):
    """Change the settings of the server's first connection, on the server's loop."""
    await run_on(server, peer(server).change_settings(settings))
