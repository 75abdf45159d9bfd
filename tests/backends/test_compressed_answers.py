"""On every engine, compressed answers are decompressed, whether the request has asked for that or not."""

from __future__ import annotations

import asyncio
import sys
import zlib

import httpx
import pytest

from llm_pool.exceptions import InvalidResponse, ProtocolError, RateLimited, StreamInterrupted
from testbed.behaviours import EVENTS, JSON, reply
from testbed.chat import chat_event
from testbed.http2 import http2
from testbed.http2 import reply as http2_reply
from tests.backends.conftest import HTTP2
from tests.backends.servers import by_path
from tests.fixtures.callers import in_thread, read_text, until
from tests.fixtures.compression import COMPRESS, gzip_flushed

pytestmark = pytest.mark.usefixtures("each_loop")

COMPLETION = (
    b'{"id": "1", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": '
    b'{"role": "assistant", "content": "Hello!"}}]}'
)
EVENTS_OF_A_STREAM = [
    chat_event({"content": "Hel"}),
    chat_event({"content": "lo!"}),
    chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n",
]
ERROR = b'{"error": {"message": "your quota is used up", "code": "insufficient_quota"}}'


def sends(body, coding, *, status=200, headers=JSON):
    """Send a body, in two pieces, as it is, and name its coding."""

    async def behaviour(exchange):
        await exchange.head(status, {**headers, "Content-Encoding": coding})
        for piece in filter(None, (body[: len(body) // 2], body[len(body) // 2 :])):
            await exchange.data(piece)
        await exchange.end()

    return behaviour


def model_in(coding, compress):
    """Answer calls to a model, with and without a stream, by compressed bodies."""
    streamed = sends(compress(b"".join(EVENTS_OF_A_STREAM)), coding, headers=EVENTS)
    whole = sends(compress(COMPLETION), coding)

    async def behaviour(exchange):
        await (streamed if b'"stream"' in exchange.body else whole)(exchange)

    return behaviour


CALLS = {
    "acomplete": lambda pool: pool.acomplete("hello"),
    "complete": lambda pool: in_thread(pool.complete, "hello"),
    "astream": lambda pool: read_text(pool.astream("hello")),
    "stream": lambda pool: in_thread(lambda: "".join(map(str, pool.stream("hello")))),
    "arequest": lambda pool: pool.arequest("POST", "/chat/completions", json={}),
    "request": lambda pool: in_thread(lambda: pool.request("POST", "/chat/completions", json={})),
}


@pytest.mark.parametrize("coding", [*COMPRESS, "identity, gzip", "GZIP "])
async def test_a_compressed_answer_is_read_by_every_call(serve, play, configure, coding):
    """Scenario 40: the pool asks for no compression; gateways that compress every answer ignore that."""
    compress = COMPRESS.get(coding, COMPRESS["gzip"])
    server = serve(play(model_in(coding.partition(":")[0], compress)))
    pool = configure(server)
    assert str(await CALLS["acomplete"](pool)) == str(await CALLS["complete"](pool)) == "Hello!"
    assert await CALLS["astream"](pool) == await CALLS["stream"](pool) == "Hello!"
    for call in ("arequest", "request"):
        response = await CALLS[call](pool)
        assert response.content == COMPLETION
        assert "content-encoding" not in response.headers
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


NOT_CODINGS = [
    "",
    "identity",
    "Identity",
    "none",
    "UTF-8",
    "7bit",
    "binary",
    "aws-chunked",
    "identity, utf-8",
]


@pytest.mark.parametrize("value", NOT_CODINGS)
async def test_what_is_no_compression_is_read_as_it_is(serve, play, configure, value):
    """Scenario 40: servers write their charset, or a name of MIME, into Content-Encoding."""
    pool = configure(serve(play(model_in(value, bytes))))
    assert str(await CALLS["acomplete"](pool)) == "Hello!"
    assert await CALLS["astream"](pool) == "Hello!"
    response = await CALLS["arequest"](pool)
    assert response.content == COMPLETION
    assert response.headers["content-encoding"] == value


@pytest.mark.parametrize("call", ["acomplete", "complete", "astream", "stream"])
async def test_a_compressed_error_keeps_its_message(serve, play, configure, call):
    """Scenario 40: message, code and Retry-After, as without compression."""
    error = sends(COMPRESS["gzip"](ERROR), "gzip", status=429, headers={**JSON, "Retry-After": "7"})
    pool = configure(serve(play(error)))
    with pytest.raises(RateLimited, match="your quota is used up") as caught:
        await CALLS[call](pool)
    assert (caught.value.code, caught.value.retry_after) == ("insufficient_quota", 7)
    await until(lambda: pool.stats().in_use == 0)


async def test_a_compressed_stream_is_not_held_back(serve, play, configure):
    """Scenario 25: each event comes through while the server has not sent the next one."""

    async def behaviour(exchange):
        await exchange.head(headers={**EVENTS, "Content-Encoding": "gzip"})
        for piece in gzip_flushed(EVENTS_OF_A_STREAM):
            await exchange.data(piece)
            await exchange.wait_for("next")
        await exchange.end()

    server = serve(play(behaviour))
    stream = configure(server).astream("hello")
    for text in ("Hel", "lo!"):
        assert str(await anext(stream)) == text
        server.gate("next").admit()
    assert "".join([str(chunk) async for chunk in stream]) == ""
    assert stream.completion.text == "Hello!"
    server.gate("next").open()


# Bodies that cannot be read.


def cut_events(compress):
    return compress(EVENTS_OF_A_STREAM[0] + EVENTS_OF_A_STREAM[1])[:-9]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "deflate:raw", "br", "zstd"])
async def test_a_compressed_answer_that_is_cut_short_is_an_error(serve, play, configure, coding):
    """Scenario 40: HTTP's framing is complete, and only the compressed data has no end."""
    compress, name = COMPRESS[coding], coding.partition(":")[0]
    pool = configure(serve(play(sends(compress(COMPLETION)[:-1], name))))
    for call in ("acomplete", "complete", "arequest", "request"):
        with pytest.raises(ProtocolError, match=f"a body that was cut short: its {name} data has no end"):
            await CALLS[call](pool)
    pool = configure(serve(play(sends(cut_events(compress), name, headers=EVENTS))))
    for call in ("astream", "stream"):
        with pytest.raises(StreamInterrupted, match="cut short"):
            await CALLS[call](pool)
    await until(lambda: pool.stats().in_use == 0)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_what_is_not_compressed_at_all_is_an_error(serve, play, configure, coding):
    """Scenario 40: the rest of the body is discarded, and the pool's only connection is free again."""

    async def behaviour(exchange):
        await exchange.head(headers={**JSON, "Content-Encoding": coding})
        await exchange.data(b"this is plain text, and more of it follows")
        await exchange.wait_for("rest")
        await exchange.end()

    server = serve(play(by_path(completions=behaviour)))
    pool = configure(server, LIMITS={"max_connections": 1})
    for call in CALLS.values():
        with pytest.raises((ProtocolError, StreamInterrupted), match=f"a body that is not valid {coding}"):
            await call(pool)
    assert pool.stats().cancelled == 0
    assert (await pool.arequest("GET", "/ok")).status_code == 200
    server.gate("rest").open()


@pytest.mark.parametrize("coding", ["compress", "snappy", "gzip, gzip", "gzip, br"])
async def test_an_unknown_coding_is_an_error_that_names_it(serve, play, configure, coding):
    """Scenario 40: two codings are unknown too; for an error the status decides its class."""
    pool = configure(serve(play(sends(b"xyz", coding))))
    for call in ("acomplete", "complete", "astream", "stream"):
        with pytest.raises(InvalidResponse, match=f"compressed by '{coding}', which this package"):
            await CALLS[call](pool)
    for call in ("arequest", "request"):
        with pytest.raises(httpx.RemoteProtocolError, match=f"compressed by '{coding}', which this package"):
            await CALLS[call](pool)
    pool = configure(serve(play(sends(b"xyz", coding, status=429))))
    with pytest.raises(RateLimited, match=f"compressed by '{coding}', which this package"):
        await CALLS["acomplete"](pool)
    await until(lambda: pool.stats().in_use == 0)


@pytest.mark.parametrize("coding", ["br", "zstd"])
async def test_without_its_package_a_coding_is_unknown(serve, play, configure, monkeypatch, coding):
    """Scenario 40: the error says what to install."""
    for module in ("brotli", "backports", "compression"):
        monkeypatch.setitem(sys.modules, module, None)
    pool = configure(serve(play(sends(COMPRESS[coding](COMPLETION), coding))))
    for call in ("acomplete", "arequest"):
        with pytest.raises(ProtocolError, match=rf"by '{coding}'.*install django-llm-pool\[compression\]"):
            await CALLS[call](pool)


@pytest.mark.parametrize(
    ("accepted", "is_accepted"),
    [
        ("snappy", True),
        ("gzip, Snappy;q=0.5", True),
        ("*", True),
        ("gzip, *;q=0.1", True),
        ("snappy;q=0", False),
        ("snappy; q=0.000, *", False),
        ("*;q=0", False),
        ("gzip", False),
    ],
)
async def test_a_request_that_accepts_an_unknown_coding_gets_the_body_as_it_is(
    serve, play, configure, accepted, is_accepted
):
    """Scenario 40: a weight of 0 means "not acceptable" (RFC 9110, section 12.4.2)."""
    pool = configure(serve(play(sends(b"xyz", "snappy"))))
    calling = pool.arequest("GET", "/x", headers={"Accept-Encoding": accepted})
    if is_accepted:
        assert (await calling).content == b"xyz"
    else:
        with pytest.raises(httpx.RemoteProtocolError, match="compressed by 'snappy'"):
            await calling


# Bounds.


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_a_body_that_expands_is_read_in_pieces(serve, play, configure, coding):
    """Scenario 40: ten million bytes from few; no piece is larger than 256 KiB."""
    pool = configure(serve(play(sends(COMPRESS[coding](bytes(10_000_000)), coding))))
    async with pool.aclient.stream("GET", "/x") as response:
        sizes = [len(piece) async for piece in response.aiter_raw()]
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= 256 * 1024


async def test_the_loop_is_not_blocked_while_a_large_body_is_decompressed(serve, play, configure):
    """Scenario 59: another task has its turns."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    bomb = COMPRESS["gzip"](b'"' + bytes(10_000_000) + b'"')
    pool = configure(serve(play(sends(bomb, "gzip"))))
    other = asyncio.create_task(others())
    with pytest.raises(InvalidResponse):
        await CALLS["acomplete"](pool)
    other.cancel()
    assert turns > 50


async def test_a_window_of_zstd_beyond_8_mib_is_refused(serve, play, configure):
    """Scenario 59: the server chooses the window, and the client allocates it (RFC 9659)."""

    def frame(window_log):
        head = b"\x28\xb5\x2f\xfd\x00" + bytes([window_log - 10 << 3])  # RFC 8878, section 3.1.1
        return head + b"\x11\x00\x00ok"  # one block of two bytes

    pool = configure(serve(play(by_path(eight=sends(frame(23), "zstd"), more=sends(frame(24), "zstd")))))
    assert (await pool.arequest("GET", "/eight")).content == b"ok"
    with pytest.raises(ProtocolError, match="not valid zstd"):
        await pool.arequest("GET", "/more")


# Responses without a body.


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
async def test_a_head_without_body_keeps_its_headers(serve, configure, kind, method, status):
    """Scenario 39: they describe a body that is not sent."""
    headers = {"content-encoding": "gzip"}
    script = http2(http2_reply(status, headers=headers)) if kind in HTTP2 else reply(status, headers=headers)
    response = await configure(serve(script)).arequest(method, "/x")
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["content-encoding"] == "gzip"


async def test_an_empty_body_is_not_cut_short(serve, play, configure):
    """Scenario 39: gateways name their coding even for a body of no bytes."""
    pool = configure(serve(play(sends(b"", "gzip"))))
    assert (await pool.arequest("GET", "/x")).content == b""


def test_the_compressors_of_these_tests_differ():
    """Raw deflate data has no header of zlib."""
    assert zlib.decompress(COMPRESS["deflate"](b"x")) == b"x"
    with pytest.raises(zlib.error):
        zlib.decompress(COMPRESS["deflate:raw"](b"x"))
