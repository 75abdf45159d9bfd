"""On every engine, a response whose status is none ends its call, with a clear error."""

from __future__ import annotations

import pytest
from hyperframe import frame as frames

from llm_pool.exceptions import ProtocolError, ReadTimeout, TotalTimeout
from testbed.behaviours import close, hold, per_connection, raw, reply, steps
from testbed.http2 import http2
from testbed.http2 import reply as http2_reply
from tests.backends.conftest import HTTP1, HTTP2
from tests.fixtures.callers import in_thread, until

pytestmark = pytest.mark.usefixtures("each_loop")

CALLS = {
    "arequest": lambda pool: pool.arequest("GET", "/x"),
    "request": lambda pool: in_thread(lambda: pool.request("GET", "/x")),
    "acomplete": lambda pool: pool.acomplete("hello"),
    "astream": lambda pool: anext(pool.astream("hello")),
}


def pool_of(configure, server):
    return configure(server, LIMITS={"max_connections": 1}, TIMEOUTS={"read": 2.0, "total": 4.0})


async def works_again(pool):
    await until(lambda: pool.stats().in_use == 0)
    assert (await pool.arequest("GET", "/x")).content == b"next"


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("status", [b"000", b"099", b"99", b"0", b"1000", b"-200", b"101", b"2xx"])
@pytest.mark.parametrize("end", [hold, close])
async def test_a_status_that_is_none_is_a_protocol_error(serve, configure, status, end):
    """Scenario 40: at once, with a body, kept alive or not; the next call is served."""
    answer = raw(b"HTTP/1.1 %b What\r\nContent-Length: 5\r\n\r\nhello" % status)
    for call in CALLS.values():
        server = serve(per_connection(steps(answer, end), reply(body=b"next")))
        pool = pool_of(configure, server)
        with pytest.raises(ProtocolError, match="sent no valid HTTP"):
            await call(pool)
        await works_again(pool)


@pytest.mark.kinds(HTTP2)
@pytest.mark.parametrize("status", ["000", "099", "99", "1000", "101", "2xx", ""])
async def test_a_status_of_http2_that_is_none_is_an_error(serve, configure, kind, status):
    """Scenario 46: at once; for httpcore, 101 and 1000 are interim, and the call ends at a timeout."""

    async def answer(stream):
        if stream.number > 1:
            await stream.respond(body=b"next")
        data = stream.peer.h2.encoder.encode([(":status", status)])
        await stream.peer.send_frames(frames.HeadersFrame(stream.number, data=data, flags=["END_HEADERS"]))
        await stream.until(lambda: False)

    server = serve(per_connection(http2(answer), http2(http2_reply(body=b"next"))))
    pool = pool_of(configure, server)
    with pytest.raises((ProtocolError, ReadTimeout)) as caught:
        await CALLS["arequest"](pool)
    is_interim = kind == "httpcore-http2" and status in ("101", "1000")
    assert isinstance(caught.value, ReadTimeout) is is_interim
    await works_again(pool)


@pytest.mark.kinds(HTTP1)
async def test_999_is_a_status(serve, configure):
    """Scenario 39: RFC 9110 allows three digits."""
    pool = pool_of(configure, serve(reply(999, b"hello")))
    response = await pool.arequest("GET", "/x")
    assert (response.status_code, response.content) == (999, b"hello")


@pytest.mark.kinds(HTTP1)
async def test_interim_responses_without_end_are_bounded(serve, configure):
    """Scenario 59: native at 64 KiB, the other engines at a timeout."""

    async def script(conn):
        await conn.read_request()
        while True:
            await conn.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    pool = pool_of(configure, serve(per_connection(script, reply(body=b"next"))))
    with pytest.raises((ProtocolError, ReadTimeout, TotalTimeout)):
        await CALLS["arequest"](pool)
    await works_again(pool)
