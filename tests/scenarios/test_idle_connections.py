"""Connections that the server ends, or sends bytes on, while they are idle; and how long they are kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_pool.engine.config import TLS
from llm_pool.exceptions import ReadTimeout
from testbed.behaviours import (
    close,
    early_reply,
    fin,
    hold,
    per_connection,
    raw,
    reply,
    reset,
    respond,
    send,
    stall,
    steps,
    until,
)
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import entries_of, has_room

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"


def answer_then(*scripts):
    """The first connection answers once and continues with these steps; all others answer "hello"."""
    return per_connection(steps(reply(body=b"hello"), *scripts), reply(body=b"hello"))


# The server ends it.


@pytest.mark.parametrize("end", [close, fin, reset])
async def test_a_connection_that_ended_while_idle_is_not_used(serve, engine_pool, each_loop, end):
    """Scenarios 27 and 28: the next call succeeds, and its request is sent once."""
    server, pool = serve(answer_then(until("end"), end, hold)), engine_pool()
    await pool.fetch(request_to(server))
    server.gate("end").open()
    await until_pool(pool, lambda: pool.stats().connections == 0)
    whole = await pool.fetch(request_to(server))
    assert (whole.body, whole.marks.reused, whole.marks.replays) == (b"hello", False, 0)
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize("end", [close, fin, reset])
async def test_a_tls_connection_that_ended_while_idle_is_not_used(
    serve, engine_pool, certificates, each_loop, end
):
    """Scenarios 27 and 28: with a close_notify, without one, and by RST."""
    server = serve(answer_then(until("end"), end, hold), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    await pool.fetch(request_to(server))
    server.gate("end").open()
    await until_pool(pool, lambda: pool.stats().connections == 0)
    assert (await pool.fetch(request_to(server))).body == b"hello"
    assert len(server.requests) == 2


async def test_an_end_is_seen_though_its_transport_is_not_closing_yet(serve, engine_pool, server_loop):
    """Scenario 27: under TLS the transport closes one step of the loop after a FIN without close_notify."""
    server, pool = serve(answer_then(until("end"))), engine_pool()
    await pool.fetch(request_to(server))
    [entry] = entries_of(pool)
    connection = entry.connection
    connection.eof_received()
    whole = await pool.fetch(request_to(server))
    assert (whole.body, whole.marks.replays) == (b"hello", 1)
    assert [request.connection for request in server.requests] == [0, 1]
    connection.transport.close()
    await until_pool(pool, lambda: pool.stats().connections == 1)


async def test_a_reset_that_is_not_yet_seen_costs_no_call(serve, engine_pool, server_loop):
    """Scenario 28: the call gets a new connection, without a replay."""
    server, pool = serve(answer_then(until("end"), reset)), engine_pool()
    await pool.fetch(request_to(server))
    server.gate("end").open()
    server.wait_until(lambda s: s.connections_open == 0)  # blocks our loop meanwhile
    assert pool.stats().idle == 1
    whole = await pool.fetch(request_to(server))
    assert (whole.body, whole.marks.replays) == (b"hello", 0)
    assert [request.connection for request in server.requests] == [0, 1]


async def test_many_connections_that_ended_at_once_cost_no_call(serve, engine_pool, each_loop):
    """Scenarios 27 and 28: each of the next calls gets an open connection."""
    dying = steps(raw(), until("all"), respond(), until("end"), reset)
    server = serve(per_connection(*[dying] * 8, reply(body=b"hello")))
    pool = engine_pool(max_keepalive_connections=8)
    calls = [asyncio.ensure_future(pool.fetch(request_to(server))) for _ in range(8)]
    await server.await_until(lambda s: s.gate("all").reached == 8)
    server.gate("all").open()
    await asyncio.gather(*calls)
    server.gate("end").open()
    await server.await_until(lambda s: s.connections_open == 0)
    responses = await asyncio.gather(*[pool.fetch(request_to(server)) for _ in range(8)])
    assert {whole.body for whole in responses} == {b"hello"}
    assert len(server.requests) == 16


# The server sends bytes without a request.


@pytest.mark.parametrize(
    "unasked",
    [
        pytest.param(STOLEN, id="a whole response"),
        pytest.param(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", id="408"),
        pytest.param(b"H", id="the beginning of one"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(b"\x15\x03", id="no HTTP"),
    ],
)
async def test_unrequested_bytes_close_an_idle_connection(serve, engine_pool, each_loop, unasked):
    """Scenario 29: no caller sees them."""
    server, pool = serve(answer_then(until("speak"), send(unasked), hold)), engine_pool()
    await pool.fetch(request_to(server))
    server.gate("speak").open()
    await server.await_until(lambda s: s.disconnects)
    await until_pool(pool, lambda: pool.stats().connections == 0)
    assert (await pool.fetch(request_to(server))).body == b"hello"
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", id="length"),
        pytest.param(
            "POST",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
            id="chunked",
        ),
        pytest.param("POST", b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", b"", id="HEAD"),
    ],
)
@pytest.mark.parametrize("unasked", [STOLEN, STOLEN[:1], b"stolen", SWITCH])
@pytest.mark.usefixtures("each_loop")
async def test_bytes_after_a_response_are_dropped(serve, engine_pool, caplog, method, answer, body, unasked):
    """Scenario 29: they arrive together with the end of the response, before the connection is idle."""
    server = serve(per_connection(steps(raw(answer + unasked), hold), reply(body=b"hello")))
    pool = engine_pool()
    whole = await pool.fetch(request_to(server, method=method))
    assert (whole.status, whole.body) == (int(answer[9:12]), body)
    assert (await pool.fetch(request_to(server))).body == b"hello"
    assert [request.connection for request in server.requests] == [0, 1]
    assert "asyncio" not in {record.name for record in caplog.records}  # asyncio logs uncaught errors


# How long it is kept.


async def test_the_servers_keep_alive_hint_is_honoured(serve, engine_pool, each_loop):
    """Scenario 32: the connection is closed before the server would close it."""
    server = serve(steps(reply(headers={"Keep-Alive": "max=99, timeout=1"}), hold))
    pool = engine_pool(keepalive_expiry=60.0)
    began = time.monotonic()
    await pool.fetch(request_to(server))
    await server.await_until(lambda s: s.disconnects)
    assert time.monotonic() - began > 0.3
    assert pool.stats().closed == {"expired": 1}


@pytest.mark.parametrize("hint", ["timeout=x", "timeout", "timeout=-1", "timeout=", "max=5", ""])
async def test_an_invalid_keep_alive_hint_is_ignored(serve, engine_pool, each_loop, hint):
    """Scenario 32: the connection stays open."""
    server, pool = serve(reply(headers={"Keep-Alive": hint})), engine_pool()
    for _ in range(2):
        await pool.fetch(request_to(server))
    assert server.connections_accepted == 1


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "x, close"])
async def test_connection_close_is_honoured(serve, engine_pool, each_loop, value):
    """Scenario 32: the pool closes the connection, even if the server does not."""
    server, pool = serve(reply(headers={"Connection": value})), engine_pool()
    for _ in range(2):
        await pool.fetch(request_to(server))
    assert [request.connection for request in server.requests] == [0, 1]
    await server.await_until(lambda s: s.connections_open == 0)


async def test_connection_close_of_our_own_is_honoured(serve, engine_pool, each_loop):
    """Scenario 32: the server may close after its response without sending the header too."""
    server, pool = serve(reply()), engine_pool()
    for _ in range(2):
        await pool.fetch(request_to(server, headers={"connection": "Close"}))
    assert [request.connection for request in server.requests] == [0, 1]
    await server.await_until(lambda s: s.connections_open == 0)


async def test_an_idle_connection_expires(serve, engine_pool, each_loop):
    """Scenario 32: after ``keepalive_expiry`` seconds without use, and not before."""
    server, pool = serve(reply()), engine_pool(keepalive_expiry=0.3)
    began = time.monotonic()
    await pool.fetch(request_to(server))
    await server.await_until(lambda s: s.disconnects)
    assert time.monotonic() - began > 0.2
    assert pool.stats().closed == {"expired": 1}


async def test_the_lifetime_ends_no_call(serve, engine_pool, each_loop):
    """Scenario 32: a connection past ``max_lifetime`` finishes its call, and is closed then."""
    server = serve(steps(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"), until("rest"), send(b"llo")))
    pool = engine_pool(max_lifetime=0.2)
    exchange = await pool.open(request_to(server))
    began = time.monotonic()
    await until_pool(pool, lambda: time.monotonic() - began > 0.4)
    server.gate("rest").open()
    assert (await exchange.host_loop.arun(exchange.read_all)).body == b"hello"
    await server.await_until(lambda s: s.disconnects)
    assert pool.stats().closed == {"lifetime": 1}


async def test_the_lifetime_ends_an_idle_connection(serve, engine_pool, each_loop):
    """Scenario 32: no call is needed to close it."""
    server, pool = serve(reply()), engine_pool(max_lifetime=0.3)
    await pool.fetch(request_to(server))
    await server.await_until(lambda s: s.disconnects)
    assert pool.stats().closed == {"lifetime": 1}


# The server sends nothing.


async def test_a_half_open_peer_costs_one_read_timeout(serve, engine_pool, each_loop):
    """Scenario 33: the request is not sent again, and the connection serves no other call."""
    server, pool = serve(answer_then(stall)), engine_pool()
    await pool.fetch(request_to(server))
    began = time.monotonic()
    with pytest.raises(ReadTimeout, match=r"sent nothing for 0\.3 s"):
        await pool.fetch(request_to(server, read=0.3, headers={"Idempotency-Key": "1"}))
    assert 0.2 < time.monotonic() - began < 3
    await server.await_until(lambda s: s.disconnects)
    assert (await pool.fetch(request_to(server))).body == b"hello"
    assert [request.connection for request in server.requests] == [0, 0, 1]


# The server responds before it has the request.

UPLOAD = b"x" * 8_000_000  # more than the kernel buffers


@pytest.mark.parametrize("status", [401, 413])
async def test_an_early_response_is_delivered(serve, engine_pool, each_loop, status):
    """Scenario 34: the connection is closed at once, even if the server does not read the rest."""
    server = serve(per_connection(early_reply(status, b"no", read_on=False), reply(body=b"hello")))
    pool = engine_pool()
    whole = await pool.fetch(request_to(server, UPLOAD))
    assert (whole.status, whole.body) == (status, b"no")
    await until_pool(pool, lambda: not server.connections[0].still_held)
    assert (await pool.fetch(request_to(server))).body == b"hello"
    assert server.connections_accepted == 2


async def test_an_early_response_is_delivered_under_tls(serve, engine_pool, certificates, each_loop):
    """Scenario 34: bytes in the buffers of TLS do not count as sent."""
    script = per_connection(early_reply(413, b"no", read_on=False), reply(body=b"hello"))
    server = serve(script, tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    whole = await pool.fetch(request_to(server, UPLOAD))
    assert (whole.status, whole.body) == (413, b"no")
    await until_pool(pool, lambda: not server.connections[0].still_held)
    assert (await pool.fetch(request_to(server))).body == b"hello"


async def test_an_early_response_before_a_reset_is_delivered(serve, engine_pool, each_loop):
    """Scenario 34: a server that closes with bytes unread sends RST right after its response."""

    async def refuse(conn):
        await conn.read_head()
        conn.pause_reading()
        await conn.wait_for("full")
        await conn.respond(413, {"Connection": "close"}, b"no")
        await conn.close()

    server, pool = serve(refuse), engine_pool()
    exchange = await pool.open(request_to(server, None))
    await exchange.host_loop.arun(write_until_full, exchange)
    server.gate("full").open()
    await exchange.host_loop.arun(exchange.head)
    whole = await exchange.host_loop.arun(exchange.read_all)
    assert (whole.status, whole.body) == (413, b"no")


async def test_an_early_response_ends_an_upload_in_pieces(serve, engine_pool, each_loop):
    """Scenario 34: ``write`` returns False, and the rest is not sent."""
    server = serve(per_connection(early_reply(413, b"no"), reply(body=b"hello")))
    pool = engine_pool()
    exchange = await pool.open(request_to(server, None))
    arun = exchange.host_loop.arun
    await arun(exchange.head)
    assert not await arun(exchange.write, b"x")
    await arun(exchange.finish)
    assert (await arun(exchange.read_all)).body == b"no"
    await until_pool(pool, lambda: pool.stats().connections == 0)
    assert (await pool.fetch(request_to(server))).body == b"hello"


async def write_until_full(exchange):
    while has_room(exchange):
        await exchange.write(b"x" * 65536)
