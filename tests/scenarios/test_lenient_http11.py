"""HTTP/1.1: responses that break the rules, and that other clients read."""

from __future__ import annotations

import pytest

from llm_pool.exceptions import ProtocolError
from testbed.behaviours import hold, per_connection, raw, reply, send, steps
from tests.fixtures.engine import request_to

pytestmark = pytest.mark.usefixtures("each_loop")

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = b"Content-Length: 5\r\n\r\nhello"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"\r\n5\r\nhello\r\n0\r\n\r\n"

UNAMBIGUOUS = {
    "blanks around a value": OK + b"X: \t a b \t\r\nContent-Length: \t5 \t\r\n\r\nhello",
    "a blank after chunked": OK + b"Transfer-Encoding: chunked \r\n" + CHUNKS,
    "chunked in a list with empty elements": OK + b"Transfer-Encoding: ,, chunked\r\n" + CHUNKS,
    "blanks after the sizes of chunks": OK + CHUNKED + b"\r\n5 \t \r\nhello\r\n0   \r\n\r\n",
    "a blank before an extension": OK + CHUNKED + b"\r\n5 ;a=b\r\nhello\r\n0\r\n\r\n",
    "empty lines before the head": b"\r\n\n" + OK + HELLO,
    "a control character in the reason": b"HTTP/1.1 200 O\x01K\r\n" + HELLO,
    "a length with zeros": OK + b"Content-Length: 005\r\n\r\nhello",
}
AMBIGUOUS = {
    "LF in the head": b"HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello",
    "LF here and there": b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello",
    "LF and an empty line of CRLF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\r\nhello",
    "CRLF and an empty line of LF": OK + b"Content-Length: 5\r\n\nhello",
    "LF before chunks": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n" + CHUNKS[1:],
    "LF in an interim head": b"HTTP/1.1 100 Continue\n\n" + OK + HELLO,
    "LF after an interim head": b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\n" + HELLO,
    "empty lines before LF": b"\n\r\n\nHTTP/1.1 200 OK\n" + HELLO,
    "a folded header": OK + b"X: a\r\n b\r\n" + HELLO,
    "a header folded by tabs, and a blank line": OK + b"X:\r\n\t\ta \r\n \r\n\tb\r\n" + HELLO,
    "a folded length": OK + b"Content-Length:\r\n 5\r\n\r\nhello",
    "a folded transfer coding": OK + b"Transfer-Encoding:\r\n chunked\r\n" + CHUNKS,
    "control characters in a value": OK + b"X: a\x01\x1b\x7fb\r\n" + HELLO,
    "equal lengths": OK + b"Content-Length: 5\r\ncontent-length: 5\r\n" + HELLO,
    "a length before chunked": OK + b"Content-Length: 9\r\n" + CHUNKED + CHUNKS,
    "a length after chunked": OK + CHUNKED + b"Content-Length: 3\r\n" + CHUNKS,
    "chunked twice in a list": OK + b"Transfer-Encoding: chunked, Chunked\r\n" + CHUNKS,
    "chunked twice": OK + CHUNKED + CHUNKED + CHUNKS,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + HELLO,
    "HTTP/2.0 kept alive": b"HTTP/2.0 200 OK\r\nConnection: keep-alive\r\n" + HELLO,
    "HTTP/0.9 kept alive": b"HTTP/0.9 200 OK\r\nConnection: keep-alive\r\n" + HELLO,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + HELLO,
    "HTTP/1.9 kept alive": b"HTTP/1.9 200 OK\r\nConnection: keep-alive\r\n" + HELLO,
}


def byte_by_byte(data):
    return raw(*[bytes([byte]) for byte in data])


@pytest.mark.parametrize("script", [raw, byte_by_byte])
@pytest.mark.parametrize("answer", UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
async def test_what_has_one_meaning_is_read_and_the_connection_reused(serve, engine_pool, answer, script):
    """Scenario 39: in one piece, and byte by byte."""
    server, pool = serve(script(answer)), engine_pool()
    for _ in range(3):
        whole = await pool.fetch(request_to(server, read=2.0))
        assert (whole.status, whole.body) == (200, b"hello")
    assert server.connections_accepted == 1


@pytest.mark.parametrize("script", [raw, byte_by_byte])
@pytest.mark.parametrize("answer", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_could_have_two_meanings_is_read_and_the_connection_closed(
    serve, engine_pool, answer, script
):
    """Scenario 40: a server or a proxy that means another response cannot answer the next call."""
    server, pool = serve(per_connection(steps(script(answer), hold), reply(body=b"next"))), engine_pool()
    whole = await pool.fetch(request_to(server, read=2.0))
    assert (whole.status, whole.body) == (200, b"hello")
    await server.await_until(lambda s: s.connections_open == 0)
    assert (await pool.fetch(request_to(server, read=2.0))).body == b"next"


async def test_the_rest_of_an_ambiguous_response_is_never_an_answer(serve, engine_pool):
    """Scenario 40: by the length the response goes on, with a head of its own; by the chunks it has ended."""
    smuggled = OK + b"Content-Length: 4\r\n\r\nevil"
    length = len(b"0\r\n\r\n") + len(smuggled)
    answer = OK + CHUNKED + b"Content-Length: %d\r\n\r\n0\r\n\r\n" % length
    server = serve(per_connection(steps(raw(answer), send(smuggled), hold), reply(body=b"next")))
    pool = engine_pool()
    assert (await pool.fetch(request_to(server))).body == b""
    assert (await pool.fetch(request_to(server))).body == b"next"


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        (b"X: \t a \t\r\nY:\r\nZ: \t\r\n", [(b"X", b"a"), (b"Y", b""), (b"Z", b"")]),
        (b"X: a \r\n  b\r\n\tc \r\nY: z\r\n", [(b"X", b"a b c"), (b"Y", b"z")]),
        (b"X: a\nY: caf\xe9\x01\n", [(b"X", b"a"), (b"Y", b"caf\xe9\x01")]),
        (b"X: a: b\nX: c\n", [(b"X", b"a: b"), (b"X", b"c")]),
    ],
)
async def test_headers_arrive_without_folds_and_blanks(serve, engine_pool, lines, headers):
    """Scenario 39: blanks around a value are not part of it (RFC 9110, section 5.5)."""
    server = serve(steps(raw(OK + lines + HELLO), hold))
    whole = await engine_pool().fetch(request_to(server))
    assert whole.headers == [*headers, (b"Content-Length", b"5")]


async def test_a_length_that_does_not_count_is_left_out(serve, engine_pool):
    """Scenario 40: beside chunked, Content-Length says nothing (RFC 9112, section 6.3)."""
    server = serve(steps(raw(OK + b"Content-Length: 9\r\n" + CHUNKED + CHUNKS), hold))
    whole = await engine_pool().fetch(request_to(server))
    assert whole.headers == [(b"Transfer-Encoding", b"chunked")]


async def test_identity_is_no_transfer_coding(serve, engine_pool):
    """Scenario 39: it was one in RFC 2616; the body ends with the connection."""
    body = raw(OK + b"Transfer-Encoding: identity\r\nConnection: close\r\n\r\nhello")
    server = serve(steps(body, lambda conn: conn.close()))
    assert (await engine_pool().fetch(request_to(server, read=2.0))).body == b"hello"


REFUSED = {
    "a blank before the first header": b" X: y\n",
    "a blank before the colon": b"X : y\n",
    "no colon": b"X\n",
    "an empty name": b": y\n",
    "NUL": b"X: a\0b\n",
    "CR": b"X: a\rb\n",
    "different lengths": b"Content-Length: 5\nContent-Length: 4\n",
    "lengths that are written differently": b"Content-Length: 05\n",
    "identity and a length": b"Transfer-Encoding: identity\n",
    "gzip in transfer": b"Transfer-Encoding: gzip, chunked\n",
    "HTTP/3.0": b"\n",
}


@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED)
async def test_what_clients_read_differently_is_refused(serve, engine_pool, request, lines):
    """Scenario 40: at most one of httpx, requests and aiohttp reads it, or they read different things."""
    version = b"3.0" if "HTTP/3.0" in request.node.name else b"1.1"
    answer = b"HTTP/%b 200 OK\n" % version + lines + HELLO
    server = serve(per_connection(steps(raw(answer), hold), reply(body=b"next")))
    pool = engine_pool()
    with pytest.raises(ProtocolError, match="sent no valid HTTP: "):
        await pool.fetch(request_to(server, read=5.0))
    assert (await pool.fetch(request_to(server))).body == b"next"


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5; a\r\nhello\r\n0\r\n\r\n",
        b"5;a = b\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    ],
)
@pytest.mark.parametrize("head", [OK + CHUNKED + b"\r\n", b"HTTP/1.1 200 OK\n" + CHUNKED + b"\n"])
async def test_chunks_are_read_strictly(serve, engine_pool, head, chunks):
    """Scenario 40: after a head with LF alone, too."""
    server = serve(steps(raw(head + chunks), hold))
    with pytest.raises(ProtocolError, match="sent no valid HTTP: "):
        await engine_pool().fetch(request_to(server, read=5.0))


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\nX: ", b"HTTP/1.1 100 Continue\n\n" * 4])
async def test_a_lenient_head_is_bounded(serve, engine_pool, head):
    """Scenario 59: 64 KiB, as for other heads."""

    async def script(conn):
        await conn.read_request()
        while True:
            await conn.send(head * 100)

    with pytest.raises(ProtocolError, match="a header block of over 65536 bytes"):
        await engine_pool().fetch(request_to(serve(script), read=5.0))


async def test_head_and_204_after_a_lenient_head_have_no_body(serve, engine_pool):
    """Scenario 39: what follows is not read as a body."""
    server = serve(steps(raw(b"HTTP/1.1 200 OK\nContent-Length: 5\n\n"), hold))
    assert (await engine_pool().fetch(request_to(server, b"", method="HEAD", read=2.0))).body == b""
    server = serve(steps(raw(b"HTTP/1.1 204 No Content\nContent-Length: 5\n\nhello"), hold))
    assert (await engine_pool().fetch(request_to(server, read=2.0))).body == b""
