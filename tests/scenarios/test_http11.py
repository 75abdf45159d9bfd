"""HTTP/1.1: valid and invalid responses, and requests that the pool refuses to send."""

from __future__ import annotations

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.http11.connection import HTTP11Connection
from llm_pool.exceptions import InvalidRequest, ProtocolError, ReadFailed
from testbed.behaviours import (
    chunked,
    close,
    cut,
    cut_chunked,
    echo,
    endless,
    expect_continue,
    fin,
    hold,
    interim,
    per_connection,
    raw,
    reply,
    reset,
    respond,
    send,
    steps,
    until_close,
)
from tests.fixtures.engine import request_to, until_pool

pytestmark = pytest.mark.usefixtures("each_loop")

OK = b"HTTP/1.1 200 OK\r\n"


async def fetched(pool, server, **options):
    """Return the response, and whether a second call reused the connection."""
    whole = await pool.fetch(request_to(server, **options))
    await pool.fetch(request_to(server, **options))
    return whole, server.connections_accepted == 1


# The ways in which a body ends.


@pytest.mark.parametrize(
    ("script", "body", "reused"),
    [
        pytest.param(reply(body=b"hello"), b"hello", True, id="content-length"),
        pytest.param(reply(body=b""), b"", True, id="content-length 0"),
        pytest.param(chunked(b"hel", b"lo"), b"hello", True, id="chunked"),
        pytest.param(chunked(), b"", True, id="chunked and empty"),
        pytest.param(chunked(b"hello", trailers={"X-Digest": "1"}), b"hello", True, id="trailers"),
        pytest.param(until_close(b"hello"), b"hello", False, id="until close, HTTP/1.0"),
        pytest.param(until_close(b"hello", version="1.1"), b"hello", False, id="until close, HTTP/1.1"),
        pytest.param(until_close(b""), b"", False, id="until close and empty"),
        pytest.param(reply(204), b"", True, id="204"),
        pytest.param(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), b"", True, id="204 without length"),
        pytest.param(
            raw(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), b"", True, id="204 with a length"
        ),
        pytest.param(
            raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), b"", True, id="304 with a length"
        ),
        pytest.param(
            raw(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), b"hello", False, id="HTTP/1.0"
        ),
        pytest.param(
            raw(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"),
            b"hello",
            True,
            id="HTTP/1.0, kept alive",
        ),
        pytest.param(raw(OK + b"Content-Length: 5\r\n\r\nhello"), b"hello", True, id="in one piece"),
        pytest.param(
            raw(
                *[bytes([byte]) for byte in OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
            ),
            b"hello",
            True,
            id="byte by byte",
        ),
        pytest.param(
            raw(OK + b'Transfer-Encoding: chunked\r\n\r\n5;a=b;c="d;e"\r\nhello\r\n0;last\r\n\r\n'),
            b"hello",
            True,
            id="chunk extensions",
        ),
        pytest.param(
            raw(
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
                b"Content-Length: 5\r\n\r\nhello"
            ),
            b"hello",
            True,
            id="an offered upgrade",
        ),
        pytest.param(raw(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"), b"hello", True, id="no reason"),
        pytest.param(raw(b"HTTP/1.1 999 ?\r\nContent-Length: 5\r\n\r\nhello"), b"hello", True, id="999"),
    ],
)
async def test_every_framing_is_read_to_its_end(serve, engine_pool, script, body, reused):
    """Scenario 39: the connection is reused if the server keeps it open."""
    server = serve(script)
    whole, was_reused = await fetched(engine_pool(), server, read=2.0)
    assert whole.body == body
    assert was_reused is reused


async def test_head_has_no_body_whatever_its_headers_say(serve, engine_pool):
    """Scenario 39: HEAD with a Content-Length, HEAD with chunked, then a GET, all on one connection."""
    head = raw(OK + b"Content-Length: 5\r\n\r\n")
    chunky = raw(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    server, pool = serve(steps(head, chunky, reply(body=b"hello"))), engine_pool()
    for _ in range(2):
        whole = await pool.fetch(request_to(server, b"", method="HEAD", read=2.0))
        assert (whole.status, whole.body) == (200, b"")
    whole = await pool.fetch(request_to(server, b"", method="GET", read=2.0))
    assert whole.body == b"hello"
    assert server.connections_accepted == 1


async def test_interim_responses_are_passed_over(serve, engine_pool):
    """Scenario 39: 100, 102 and 103 before the head are ignored, and so are their headers."""
    early = send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 7\r\n\r\n")
    server = serve(interim(100, 102, then=steps(early, respond(200, b"hello", {"X-Own": "1"}))))
    whole, reused = await fetched(engine_pool(), server, read=2.0)
    assert (whole.status, whole.body) == (200, b"hello")
    assert [name for name, _ in whole.headers] == [b"X-Own", b"Content-Length"]
    assert reused


async def test_an_interim_response_does_not_end_an_upload(serve, engine_pool):
    """Scenario 39: the rest of the body is sent after a 100 Continue, and the request arrives complete."""
    server, pool = serve(expect_continue(body=b"thanks")), engine_pool()
    exchange = await pool.open(request_to(server, None, read=2.0))
    arun = exchange.host_loop.arun
    assert await arun(exchange.write, b"one")
    await until_pool(pool, lambda: exchange.answered)
    assert await arun(exchange.write, b"two")
    await arun(exchange.finish)
    await arun(exchange.head)
    assert (await arun(exchange.read_all)).body == b"thanks"
    assert server.requests[0].body == b"onetwo"


@pytest.mark.parametrize("end", [close, fin, reset])
@pytest.mark.parametrize("script", [cut, cut_chunked], ids=["content-length", "chunked"])
async def test_a_body_that_is_cut_short_is_an_error(serve, engine_pool, script, end):
    """Scenario 39: a close does not complete a body with a Content-Length or in chunks."""
    then = steps(end, hold)
    server = serve(cut(b"hello", 3, then) if script is cut else cut_chunked(b"hel", b"lo", then=then))
    with pytest.raises(ProtocolError, match="closed the connection before the response was complete"):
        await engine_pool().fetch(request_to(server, read=5.0))


UNTIL_CLOSE = raw(b"HTTP/1.0 200 OK\r\n\r\nhello")


@pytest.mark.parametrize("end", [close, fin])
async def test_under_tls_a_close_ends_a_body_until_close(serve, engine_pool, certificates, end):
    """Scenario 39: with a close_notify, or by a FIN alone, as other clients accept it."""
    server = serve(steps(UNTIL_CLOSE, end, hold), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    assert (await pool.fetch(request_to(server, read=2.0))).body == b"hello"


@pytest.mark.parametrize(
    "until_fin", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n"]
)
async def test_under_tls_a_fin_completes_nothing_else(serve, engine_pool, certificates, until_fin):
    """Scenario 39: neither a body with a length nor a head."""
    server = serve(steps(raw(until_fin), fin, hold), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    with pytest.raises((ProtocolError, ReadFailed), match="closed the connection"):
        await pool.fetch(request_to(server, read=2.0))


async def test_a_reset_does_not_end_a_body_until_close(serve, engine_pool, certificates):
    """Scenario 39: the body is cut short, with and without TLS."""
    for tls in (None, certificates.good):
        server = serve(steps(UNTIL_CLOSE, reset), tls=tls)
        pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
        with pytest.raises((ProtocolError, ReadFailed), match="closed the connection"):
            await pool.fetch(request_to(server, read=2.0))


# What is not HTTP, or is ambiguous.


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 OK 200\r\n\r\n", id="status line turned round"),
        pytest.param(b"HTTP/1.1 99 ?\r\nContent-Length: 0\r\n\r\n", id="status of two digits"),
        pytest.param(b"HTTP/1.1 000 ?\r\nContent-Length: 5\r\n\r\nhello", id="status 000"),
        pytest.param(b"HTTP/1.1 1000 ?\r\nContent-Length: 0\r\n\r\n", id="status of four digits"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", id="101 unasked"),
        pytest.param(OK + b"A: b\rc\r\nContent-Length: 0\r\n\r\n", id="CR in a header"),
        pytest.param(OK + b"A: b\0c\r\nContent-Length: 0\r\n\r\n", id="NUL in a header"),
        pytest.param(OK + b"A\x01: b\r\nContent-Length: 0\r\n\r\n", id="odd header name"),
        pytest.param(OK + b"Content-Length : 0\r\n\r\n", id="space before the colon"),
        pytest.param(OK + b"no colon\r\n\r\n", id="header without colon"),
        pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", id="two lengths"),
        pytest.param(OK + b"Content-Length: 5, 6\r\n\r\nhello!", id="a list of lengths"),
        pytest.param(OK + b"Content-Length: -5\r\n\r\nhello", id="negative length"),
        pytest.param(OK + b"Content-Length: +5\r\n\r\nhello", id="length with a sign"),
        pytest.param(OK + b"Content-Length: 0x5\r\n\r\nhello", id="length in hex"),
        pytest.param(OK + b"Content-Length: 99999999999999999999\r\n\r\nhello", id="length beyond 64 bits"),
        pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="compressed in transfer"),
        pytest.param(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\nhello", id="chunked is not the last"),
        pytest.param(OK + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", id="an element after chunked"),
        pytest.param(OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown transfer coding"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n", id="chunk size in words"
        ),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", id="negative chunk"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", id="huge chunk"
        ),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", id="chunk too long"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", id="LF after a chunk size"
        ),
    ],
)
async def test_what_is_not_http_is_a_protocol_error(serve, engine_pool, answer):
    """Scenario 40: the call fails at once, and the connection is not used again."""
    server = serve(per_connection(steps(raw(answer), hold), reply(body=b"hello")))
    pool = engine_pool()
    with pytest.raises(ProtocolError, match="sent no valid HTTP: "):
        await pool.fetch(request_to(server, read=5.0))
    assert (await pool.fetch(request_to(server))).body == b"hello"
    await server.await_until(lambda s: s.connections_open == 1)
    assert server.connections_accepted == 2


async def test_a_switch_of_protocols_is_called_by_its_name(serve, engine_pool):
    """Scenario 40: the pool never asks for an upgrade."""
    server = serve(raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"))
    with pytest.raises(ProtocolError, match="switched protocols"):
        await engine_pool().fetch(request_to(server, read=5.0))


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 ", b"x" * 1000, id="status line"),
        pytest.param(OK + b"X: ", b"x" * 1000, id="one header"),
        pytest.param(OK, b"X: y\r\n", id="many headers"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", id="interim responses"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 1000, id="chunk extension"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"X: y\r\n", id="trailers"
        ),
    ],
)
async def test_what_does_not_end_is_given_up_at_64_kib(serve, engine_pool, head, piece):
    """Scenario 40: the server would send it without end; the connection is closed after 64 KiB."""
    server = serve(endless(piece, head=head or piece))
    with pytest.raises(ProtocolError, match="a header block of over 65536 bytes"):
        await engine_pool().fetch(request_to(server, read=5.0))
    await server.await_until(lambda s: s.connections_open == 0)


async def test_a_header_block_of_over_64_kib_is_refused_even_when_it_ends(serve, engine_pool):
    """Scenario 40: the limit does not depend on how many bytes each read returns."""
    lines = b"X-Filler: " + b"x" * 990 + b"\r\n"
    large = OK + lines * 70 + b"Content-Length: 5\r\n\r\nhello"
    small = OK + lines * 60 + b"Content-Length: 5\r\n\r\nhello"
    server, pool = serve(per_connection(steps(raw(large), hold), raw(small))), engine_pool()
    with pytest.raises(ProtocolError, match="a header block of over 65536 bytes"):
        await pool.fetch(request_to(server, read=5.0))
    assert (await pool.fetch(request_to(server, read=5.0))).body == b"hello"


# What we send.


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"headers": {"X-Own": "a\r\nX-Smuggled: b"}}, id="CRLF in a value"),
        pytest.param({"headers": {"X-Own": "a\nb"}}, id="LF in a value"),
        pytest.param({"headers": {"X-Own": "a\rb"}}, id="CR in a value"),
        pytest.param({"headers": {"X-Own": "a\0b"}}, id="NUL in a value"),
        pytest.param({"headers": {"X-Own\r\nX": "a"}}, id="CRLF in a name"),
        pytest.param({"headers": {"X Own": "a"}}, id="space in a name"),
        pytest.param({"headers": {"X:Own": "a"}}, id="colon in a name"),
        pytest.param({"headers": {"": "a"}}, id="no name"),
        pytest.param({"target": "/v1 HTTP/1.1\r\nX: y\r\n"}, id="CRLF in the path"),
        pytest.param({"target": "/v1/a b"}, id="space in the path"),
        pytest.param({"target": "/v1/\0"}, id="NUL in the path"),
        pytest.param({"target": "/v1/\xe9"}, id="Latin-1 in the path"),
        pytest.param({"method": "GET /\r\n"}, id="CRLF in the method"),
        pytest.param({"method": ""}, id="no method"),
        pytest.param({"headers": {"Content-Length": "3"}}, id="length longer than the body"),
        pytest.param({"headers": {"Content-Length": "1"}}, id="length shorter than the body"),
        pytest.param({"headers": {"Content-Length": "two"}}, id="length in words"),
        pytest.param({"headers": {"Content-Length": "-2"}}, id="negative length"),
        pytest.param({"headers": {"content-length": "2"}}, id="two lengths"),
        pytest.param({"headers": {"Transfer-Encoding": "chunked"}}, id="length and chunked"),
        pytest.param({"body": None, "headers": {"Transfer-Encoding": "gzip"}}, id="another coding"),
        pytest.param({"body": None, "headers": {"Transfer-Encoding": "x", "Content-Length": "9"}}, id="both"),
    ],
)
async def test_ambiguous_requests_are_refused(serve, engine_pool, wrong):
    """Scenario 40: before a connection is opened for it."""
    server, pool = serve(echo), engine_pool()
    with pytest.raises(InvalidRequest):
        await pool.fetch(request_to(server, **wrong))
    assert pool.stats().connections == 0
    assert server.connections_accepted == 0


async def test_a_body_shorter_or_longer_than_its_length_ends_the_connection(serve, engine_pool):
    """Scenario 40: the server must not read the next request as the rest of this one."""
    server, pool = serve(echo), engine_pool()
    request = request_to(server, None, length=2)
    for body in (b"a", b"abc"):
        exchange = await pool.open(request)
        with pytest.raises(InvalidRequest, match="than its Content-Length says"):
            await exchange.host_loop.arun(send_whole, exchange, body)
        exchange.close_threadsafe()
    await server.await_until(lambda s: s.connections_open == 0)
    assert server.requests == []


async def send_whole(exchange, body):
    await exchange.write(body)
    await exchange.finish()


async def test_a_read_takes_memory_for_64_kib_and_no_more(serve, engine_pool, server_loop, monkeypatch):
    """asyncio's default, 256 KiB, would be allocated from the system and returned to it at each read."""
    sizes = []
    take = HTTP11Connection.data_received

    def watched(connection, data):
        sizes.append(len(data))
        take(connection, data)

    monkeypatch.setattr(HTTP11Connection, "data_received", watched)
    server = serve(reply(body=bytes(2_000_000)))
    whole = await engine_pool().fetch(request_to(server))
    assert len(whole.body) == 2_000_000
    assert max(sizes) <= 64 * 1024
