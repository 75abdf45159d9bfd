"""HTTP/2: heads, lengths and trailers that break the rules."""

from __future__ import annotations

import pytest
from hyperframe import frame as frames

from llm_pool.exceptions import InvalidRequest, ProtocolError
from testbed.http2 import http2, reply
from tests.fixtures.engine import request_to
from tests.scenarios.http2_calls import h2_pool, peer, start_call

__all__ = ["h2_pool"]


# Malformed responses: they fail one stream.


def fields(*pairs, end=True, body=b""):
    """Send a head of exactly these fields, and ``body``; to "/good" a valid response."""

    async def answer(stream):
        if stream.request.target == "/good":
            await stream.wait_for("good")
            await stream.respond()
            return
        head = frames.HeadersFrame(stream.number, data=stream.peer.h2.encoder.encode(pairs))
        head.flags |= {"END_HEADERS"} | ({"END_STREAM"} if end and not body else set())
        data = frames.DataFrame(stream.number, data=body)
        if end:
            data.flags.add("END_STREAM")
        await stream.peer.send_frames(head, *([data] if body else []))

    return answer


def interim(*pairs):
    """Send an interim head of exactly these fields, and never a final one; to "/good" a valid response."""
    return fields(*pairs, end=False)


def trailers(*pairs):
    """Send a head, a body, and trailers of exactly these fields; to "/good" a valid response."""
    start = fields(OK, body=b"body", end=False)

    async def answer(stream):
        await start(stream)
        if stream.request.target != "/good":
            data = stream.peer.h2.encoder.encode(pairs)
            flags = ["END_HEADERS", "END_STREAM"]
            await stream.peer.send_frames(frames.HeadersFrame(stream.number, data=data, flags=flags))

    return answer


async def cut_by_trailers(stream):
    if stream.request.target == "/good":
        await stream.wait_for("good")
        await stream.respond()
        return
    await stream.head(200, {"content-length": "100"})
    await stream.data(b"short")
    await stream.trailers({"x": "y"})


OK = (":status", "200")
MALFORMED = {
    "nothing": fields(),
    "no status": fields(("x", "y")),
    "status in words": fields((":status", "okay")),
    "status of underscores": fields((":status", "2_0")),
    "status zero": fields((":status", "000")),
    "two statuses": fields(OK, OK),
    "a request's field": fields(OK, (":path", "/")),
    "status after headers": fields(("x", "y"), OK),
    "a blank in a name": fields(OK, ("x y", "z")),
    "an empty name": fields(OK, ("", "z")),
    "a line break": fields(OK, ("x", "a\r\nset-cookie: b")),
    "NUL": fields(OK, ("x", "a\0b")),
    "too short": fields(OK, ("content-length", "9"), body=b"short"),
    "too long": fields(OK, ("content-length", "2"), body=b"long"),
    "too long, unended": fields(OK, ("content-length", "2"), body=b"long", end=False),
    "no body at all": fields(OK, ("content-length", "9")),
    "cut by trailers": cut_by_trailers,
    "different lengths": fields(OK, ("content-length", "5"), ("content-length", "6"), body=b"hello"),
    "different lengths, and the first ends the body": fields(
        OK, ("Content-Length", "0"), ("content-length", "5"), body=b"hello"
    ),
    "a list of lengths": fields(OK, ("content-length", "5, 5"), body=b"hello"),
    "a length in words": fields(OK, ("content-length", "many")),
    "a negative length": fields(OK, ("content-length", "-1")),
    "a length beyond 64 bits": fields(OK, ("content-length", "9" * 5000)),
    "204 with a body": fields((":status", "204"), body=b"x"),
    "304 with a body": fields((":status", "304"), ("content-length", "1"), body=b"x"),
    "101": interim((":status", "101"), ("upgrade", "x")),
    "an interim status of one digit": interim((":status", "1")),
    "an interim status of four digits": interim((":status", "1000")),
    "an interim status in words": interim((":status", "1xx")),
    "a status in the trailers": trailers((":status", "200")),
    "a path in the trailers": trailers(("x", "y"), (":path", "/")),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_answer_is_an_error_of_its_stream(serve, h2_pool, each_loop, answer):
    """Scenario 46: RFC 9113, section 8.1.1; the other call and the connection continue."""
    server = serve(http2(answer))
    pool = h2_pool()
    good = start_call(pool, server, target="/good")
    await server.await_requests(1)
    with pytest.raises(ProtocolError, match="sent no valid HTTP/2: "):
        await pool.fetch(request_to(server, read=5.0))
    server.gate("good").open()
    assert (await good).status == 200
    assert (await pool.fetch(request_to(server, target="/good"))).status == 200
    assert server.connections_accepted == 1


async def test_a_body_after_head_is_refused(serve, h2_pool):
    """Scenario 46: as in 204 and 304."""
    server = serve(http2(fields(OK, ("content-length", "5"), body=b"hello")))
    pool = h2_pool()
    for _ in range(2):
        with pytest.raises(ProtocolError, match="a body of 5 bytes, where 0 were announced or allowed"):
            await pool.fetch(request_to(server, b"", method="HEAD", read=5.0))
    assert server.connections_accepted == 1


ODD = {
    "connection: keep-alive": [("connection", "keep-alive")],
    "connection: close": [("connection", "close")],
    "keep-alive": [("keep-alive", "timeout=5")],
    "proxy-connection": [("proxy-connection", "keep-alive")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "upgrade": [("upgrade", "h2,h2c")],
    "upper case": [("X-Upper", "y")],
    "a length in upper case": [("Content-Length", "5")],
    "equal lengths": [("content-length", "5"), ("content-length", "5")],
    "an empty value": [("x", "")],
    "a control character": [("x", "a\x01b")],
    "bytes that are not ASCII": [("x", "caf\xe9")],
}


@pytest.mark.parametrize("pairs", ODD.values(), ids=ODD)
async def test_odd_headers_are_accepted_and_delivered(serve, h2_pool, each_loop, pairs):
    """Scenario 46: servers send what RFC 9113, section 8.2, forbids, and httpx accepts it too."""
    server = serve(http2(fields(OK, *pairs, body=b"hello")))
    pool = h2_pool()
    for _ in range(2):
        whole = await pool.fetch(request_to(server, read=5.0))
        assert (whole.status, whole.body) == (200, b"hello")
        assert whole.headers == [(name.encode(), value.encode()) for name, value in pairs]
    assert server.connections_accepted == 1


async def test_blanks_around_a_value_are_not_part_of_it(serve, h2_pool):
    """Scenario 46: as over HTTP/1.1 (RFC 9110, section 5.5)."""
    server = serve(http2(fields(OK, ("retry-after", " 7 \t"), ("content-length", "5 "), body=b"hello")))
    whole = await h2_pool().fetch(request_to(server, read=5.0))
    assert whole.headers == [(b"retry-after", b"7"), (b"content-length", b"5")]


@pytest.mark.parametrize(("status", "length"), [("304", "1000"), ("204", "1000"), ("304", "many")])
async def test_a_length_without_a_body_is_accepted(serve, h2_pool, status, length):
    """Scenario 46: it describes what a 200 would have had; an empty DATA frame ends the response."""

    async def answer(stream):
        data = stream.peer.h2.encoder.encode([(":status", status), ("content-length", length)])
        head = frames.HeadersFrame(stream.number, data=data, flags=["END_HEADERS"])
        await stream.peer.send_frames(head, frames.DataFrame(stream.number, flags=["END_STREAM"]))

    server = serve(http2(answer))
    pool = h2_pool()
    for _ in range(2):
        assert (await pool.fetch(request_to(server, read=5.0))).body == b""
    assert server.connections_accepted == 1


@pytest.mark.parametrize("rest", [b"", b"o!"], ids=["too short", "too long"])
async def test_an_upload_that_differs_from_its_length_is_refused(serve, h2_pool, each_loop, rest):
    """Scenario 46: InvalidRequest, as over HTTP/1.1; the stream is reset, and the connection stays open."""
    server = serve(http2(reply(body=b"ok")))
    pool = h2_pool()
    exchange = await pool.open(request_to(server, None, length=5))
    arun = exchange.host_loop.arun
    await arun(exchange.write, b"hell")
    await server.await_requests(1)
    with pytest.raises(InvalidRequest, match=r"the body is (longer|1 bytes shorter) than its Content-Length"):
        await (arun(exchange.write, rest) if rest else arun(exchange.finish))
    exchange.close_threadsafe()
    await server.await_until(lambda s: peer(s).streams[1].reset_by_client is not None)
    assert (await pool.fetch(request_to(server))).body == b"ok"
    assert server.connections_accepted == 1
