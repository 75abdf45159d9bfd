"""Every engine raises the same errors with the same texts, and no error of its library."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from llm_pool.engine.loops import portal
from llm_pool.exceptions import (
    ConnectFailed,
    ConnectTimeout,
    DNSFailed,
    LLMPoolError,
    ProtocolError,
    ReadFailed,
    ReadTimeout,
    StreamInterrupted,
    TLSFailed,
    TotalTimeout,
    WriteTimeout,
)
from testbed.behaviours import (
    close,
    cut,
    fin,
    garbage,
    json_reply,
    mark,
    per_connection,
    raw,
    reset,
    steps,
    stop_reading,
)
from testbed.behaviours import hold as hold_on
from testbed.behaviours import until as until_gate
from testbed.chat import chat_event
from testbed.ports import refused_port, unanswering_port
from tests.backends.conftest import HTTP1
from tests.backends.servers import answer, by_path, model
from tests.fixtures.callers import in_thread, until


async def hold(exchange):
    await exchange.hold()


# No connection


async def test_the_error_of_a_refused_connection_names_the_address(configure):
    with refused_port() as port:
        pool = configure(f"http://127.0.0.1:{port}")
        for _ in range(2):
            with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: Connection refused") as caught:
                await pool.arequest("GET", "/x")
    assert isinstance(caught.value, httpx.ConnectError)
    assert pool.stats().in_use == 0


async def test_a_dial_fails_at_the_connect_timeout(configure):
    with unanswering_port() as port:
        pool = configure(f"http://127.0.0.1:{port}", TIMEOUTS={"connect": 0.1})
        with pytest.raises(ConnectTimeout, match=f"no connection to http://127.0.0.1:{port} within 0.1 s"):
            await pool.arequest("GET", "/x")


async def test_a_call_can_turn_the_connect_timeout_off(configure):
    with unanswering_port() as port:
        pool = configure(f"http://127.0.0.1:{port}", TIMEOUTS={"connect": 0.1, "total": 0.6})
        with pytest.raises(TotalTimeout):
            await pool.arequest("GET", "/x", timeout=httpx.Timeout(5.0, connect=None))


async def test_the_error_of_an_unknown_host_names_it(configure, fake_dns):
    pool = configure("http://absent.test:1")
    with pytest.raises(DNSFailed, match=r"the name 'absent\.test' has no address: Name or service not known"):
        await pool.arequest("GET", "/x")
    assert fake_dns.queries == ["absent.test"]
    await in_thread(portal.stop)  # httpcore resolves names on a thread of the loop


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("wrong_name", "its certificate was refused: .*127.0.0.1"),
        ("expired", "its certificate was refused: certificate has expired"),
        ("unknown_authority", "its certificate was refused: unable to get local issuer certificate"),
    ],
)
async def test_an_invalid_certificate_is_refused_and_nothing_is_sent(
    serve, play, configure, certificates, fault, why
):
    """Scenario 49: the error names the host and the reason."""
    server = serve(play(answer), tls=getattr(certificates, fault))
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    with pytest.raises(TLSFailed, match=f"no TLS connection to {server.url}: {why}"):
        await pool.arequest("GET", "/x")
    assert server.requests == []


async def test_a_connection_closed_in_the_handshake_is_a_tls_failure(serve, play, configure, certificates):
    """Scenario 49: the server closes after the first bytes."""

    async def close_early(conn):
        await conn.read_some()
        await conn.close()

    server = serve(close_early)
    pool = configure(server.url.replace("http:", "https:"), TLS={"ca_file": certificates.ca_file})
    with pytest.raises(TLSFailed, match=r"no TLS connection to .*: the connection was closed during the"):
        await pool.arequest("GET", "/x")


async def test_calls_succeed_again_after_failed_dials(serve, play, configure):
    """Scenario 11: a failed dial does not count as a connection."""
    server = serve(play(answer))
    pool = configure(server, LIMITS={"max_connections": 1})
    server.refuse()
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await pool.arequest("GET", "/x")
    server.listen_again()
    assert (await pool.arequest("GET", "/x")).status_code == 200


async def test_a_failed_dial_fails_every_call_that_waits(configure):
    """Scenario 11: including the calls that are queued behind the first ones."""
    with refused_port() as port:
        pool = configure(f"http://127.0.0.1:{port}", LIMITS={"max_connections": 2}, streams=4)
        outcomes = await asyncio.gather(
            *(pool.arequest("GET", "/x") for _ in range(10)), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [type(outcomes[0])] * 10
    assert isinstance(outcomes[0], ConnectFailed)


# No response, or an incomplete one


@pytest.mark.parametrize("head_sent", [False, True])
async def test_a_call_fails_at_the_read_timeout(serve, play, configure, head_sent):
    """Scenario 33: before the head and during the body; the connection is not used again."""

    async def stall(exchange):
        if head_sent:
            await exchange.head()
            await exchange.data(b"x")
        await exchange.hold()

    server = serve(play(by_path(stall=stall)))
    pool = configure(server, TIMEOUTS={"read": 0.15}, LIMITS={"max_connections": 1})
    with pytest.raises(ReadTimeout, match=f"{server.url} sent nothing for 0.15 s") as caught:
        await pool.arequest("GET", "/stall")
    assert isinstance(caught.value, httpx.ReadTimeout)
    assert (await pool.arequest("GET", "/x", timeout=5.0)).status_code == 200


async def test_a_call_fails_at_the_total_timeout(serve, play, configure):
    """As with aiohttp's ``total``, but on every engine: even if the server never stops sending."""

    async def drip(exchange):
        await exchange.head()
        while True:
            await exchange.data(b"x")
            await asyncio.sleep(0.01)

    server = serve(play(drip))
    pool = configure(server, TIMEOUTS={"total": 0.3, "read": 5.0})
    with pytest.raises(TotalTimeout, match=r"took longer than its total timeout of 0\.3 s"):
        await pool.arequest("GET", "/x")


@pytest.mark.kinds(HTTP1)
async def test_a_call_fails_at_the_write_timeout(serve, configure):
    """As with httpx's ``write``, but on every engine."""
    pool = configure(serve(stop_reading()), TIMEOUTS={"write": 0.2, "total": 10.0})
    with pytest.raises(WriteTimeout, match=r"accepted nothing of the request for 0\.2 s"):
        await pool.arequest("POST", "/x", content=b"x" * 30_000_000)


@pytest.mark.kinds(HTTP1)
async def test_an_upload_that_progresses_may_exceed_the_write_timeout(serve, configure):
    """Each piece that the server reads restarts the write timeout."""
    piece, rest = 2_000_000, 16_000_000

    async def slow(conn):
        await conn.read_head()
        for _ in range(7):
            conn.pause_reading()
            await asyncio.sleep(0.25)
            conn.resume_reading()
            await conn.read(piece)
        await conn.read(rest)
        await conn.respond(200)

    # Less than the seven pauses together; more than one pause, by a second for slow machines.
    pool = configure(serve(slow), TIMEOUTS={"write": 1.5})
    assert (await pool.arequest("POST", "/x", content=b"x" * (7 * piece + rest))).status_code == 200


async def test_a_truncated_body_is_an_error(serve, play, configure):
    """Scenario 39: the connection closes in the middle of the body."""

    async def broken(exchange):
        await exchange.head(headers={"Content-Type": "text/plain"})
        await exchange.data(b"half")
        await exchange.cut()

    pool = configure(serve(play(broken)))
    with pytest.raises(ProtocolError, match="closed the connection before the response was complete"):
        await pool.arequest("GET", "/x")


@pytest.mark.kinds(HTTP1)
async def test_a_body_shorter_than_its_length_is_an_error(serve, configure):
    """Scenario 39."""
    pool = configure(serve(cut(b"x" * 1000, 10)))
    with pytest.raises(ProtocolError, match="closed the connection before the response was complete"):
        await pool.arequest("GET", "/x")


async def test_an_interrupted_stream_keeps_its_partial_text(serve, play, configure):
    """Scenario 36: ``StreamInterrupted.partial``."""

    async def broken(exchange):
        await exchange.head(headers={"Content-Type": "text/event-stream"})
        await exchange.data(chat_event({"content": "one"}))
        await exchange.wait_for("cut")
        await exchange.cut()

    server = serve(play(broken))
    pool = configure(server)
    stream = pool.astream("hello")
    assert str(await anext(stream)) == "one"
    server.gate("cut").open()
    with pytest.raises(StreamInterrupted) as caught:
        await anext(stream)
    assert caught.value.partial == "one"


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.kinds(HTTP1)
async def test_a_connection_closed_without_an_answer_is_an_error(serve, configure, end):
    """Scenario 30: a request that fails on a new connection is not sent again."""
    server = serve(steps(raw(), end))
    pool = configure(server)
    with pytest.raises(ReadFailed, match="closed the connection without an answer"):
        await pool.arequest("GET", "/x")
    assert len(server.requests) == 1


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize(
    "script",
    [
        garbage,
        steps(raw(b"HTTP/1.1 abc OK\r\n\r\n"), close),
        steps(raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), close),
        steps(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), close),
        steps(raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), close),
        steps(raw(b"HTTP/1.1 200 OK\r\nContent-Le"), close),
    ],
    ids=["garbage", "status", "length", "chunk", "endless head", "incomplete head"],
)
async def test_a_response_that_is_not_http_is_an_error(serve, configure, script):
    """Scenario 40: on every engine an ``LLMPoolError`` that is also an ``httpx.TransportError``."""
    pool = configure(serve(script), TIMEOUTS={"read": 5.0})
    with pytest.raises(LLMPoolError) as caught:
        await pool.arequest("GET", "/x")
    assert isinstance(caught.value, httpx.TransportError)
    assert re.match(r"http://127.0.0.1:\d+ (sent no valid HTTP|closed the connection)", str(caught.value))


# Stale connections, and requests sent again


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("end", [close, fin, reset])
async def test_a_connection_closed_while_idle_is_not_used(serve, configure, kind, end):
    """Scenarios 27 and 28: the next call gets a new connection."""
    first = steps(json_reply(), until_gate("end"), end, mark("ended"), hold_on)
    server = serve(per_connection(first, json_reply()))
    pool = configure(server)
    await pool.arequest("GET", "/x")
    server.gate("end").open()
    await server.await_mark("ended")
    if kind == "native-http1":  # the other libraries notice the close at the next call
        await until(lambda: pool.stats().idle == 0)
    assert (await pool.arequest("POST", "/x", content=b"{}")).status_code == 200
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_no_request_is_sent_again_without_an_idempotency_key(serve, configure, method):
    """Scenario 30: not even a GET or PUT, which aiohttp alone would send again."""
    server = serve(per_connection(steps(json_reply(), raw(), close), json_reply()))
    pool = configure(server)
    await pool.arequest("GET", "/x")
    with pytest.raises(ReadFailed, match="without an answer"):
        await pool.arequest(method, "/x", content=None if method == "GET" else b"{}")
    assert len(server.requests) == 2


@pytest.mark.kinds(HTTP1)
async def test_a_request_with_an_idempotency_key_is_sent_again(serve, configure):
    """Scenario 30: after a failure on a reused connection."""
    server = serve(per_connection(steps(json_reply(), raw(), close), json_reply()))
    pool = configure(server)
    await pool.arequest("GET", "/x")
    response = await pool.arequest("POST", "/x", content=b"{}", headers={"Idempotency-Key": "1"})
    assert response.status_code == 200
    assert [request.connection for request in server.requests] == [0, 0, 1]


async def test_a_stream_closed_early_releases_its_connection(serve, play, configure):
    """Scenario 35: closed after the first token."""
    server = serve(play(model))
    pool = configure(server, LIMITS={"max_connections": 1})
    server.gate("token").admit(1)
    stream = pool.astream("gated")
    assert str(await anext(stream)) == "one"
    await stream.aclose()
    assert (await pool.acomplete("hello")).text == "Hello!"
    await until(lambda: pool.stats().in_use == 0)


async def test_the_server_must_wait_for_a_slow_reader(serve, play, configure):
    """Scenario 37: backpressure bounds the memory."""

    async def flood(exchange):
        await exchange.head()
        while True:
            await exchange.data(b"x" * 65536)

    server = serve(play(flood))
    pool = configure(server)
    async with pool.aclient.stream("GET", "/x") as response:
        assert await anext(response.aiter_raw())
        sent = -1
        while sent != (sent := server.connections[0].bytes_sent):
            assert sent < 24 * 1024 * 1024
            await asyncio.sleep(0.15)
