"""HTTP/2: valid frames, malformed responses, and violations of the protocol."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe import frame as frames
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.engine.http2.frames import BrokenRule, ErrorCode
from llm_pool.engine.http2.wire import Wire
from llm_pool.exceptions import ProtocolError, ReadFailed
from testbed.behaviours import hold, per_connection, raw, steps
from testbed.http2 import frames_in, http2, reply
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import entries_of
from tests.scenarios.http2_calls import calls, h2_pool, peer, random_bytes, start_call

__all__ = ["h2_pool"]

BODY = random_bytes(50_000)


# Valid frames.


async def padded(stream):
    await stream.head(200)
    await stream.data(BODY, pad=200)
    await stream.data(b"", pad=10)
    await stream.data(BODY, pad=0, end=True)


async def with_empty_frames(stream):
    await stream.head(200)
    for piece in (b"", BODY, b"", b"", BODY, b""):
        await stream.data(piece)
    await stream.data(b"", end=True)


async def with_trailers(stream):
    await stream.head(200, {"trailer": "x-checksum"})
    await stream.data(BODY + BODY)
    await stream.trailers({"x-checksum": "abc"})


async def after_interim_answers(stream):
    await stream.head(100)
    await stream.head(103, {"link": "</style.css>; rel=preload"})
    await stream.head(103)
    await stream.respond(body=BODY + BODY)


async def in_continuations(stream):
    """Send the head in one frame for each of its bytes."""
    block = stream.peer.h2.encoder.encode([(":status", "200"), ("x-long", "y" * 20)])
    pieces = [block[start : start + 1] for start in range(len(block))]
    first = frames.HeadersFrame(stream.number, data=pieces[0])
    rest = [frames.ContinuationFrame(stream.number, data=piece) for piece in pieces[1:]]
    rest[-1].flags.add("END_HEADERS")
    await stream.peer.send_frames(first, *rest)
    for start in range(0, 100_000, 10_000):
        data = frames.DataFrame(stream.number, data=(BODY + BODY)[start : start + 10_000])
        await stream.peer.send_frames(data)
    last = frames.DataFrame(stream.number)
    last.flags.add("END_STREAM")
    await stream.peer.send_frames(last)


async def among_frames_unknown(stream):
    await stream.head(200)
    strange = b"\x00\x00\x08\xee\x00" + stream.number.to_bytes(4, "big") + b"whatever"
    await stream.peer.send_frames(strange, frames.PriorityFrame(stream.number, stream_weight=3))
    await stream.data(BODY + BODY, end=True)


@pytest.mark.parametrize(
    "answer",
    [
        padded,
        with_empty_frames,
        with_trailers,
        after_interim_answers,
        in_continuations,
        among_frames_unknown,
    ],
)
async def test_an_answer_comes_through(serve, h2_pool, answer):
    """Scenario 46: padding, empty frames, trailers, 1xx, CONTINUATION, unknown frames; read in pieces too."""
    server = serve(http2(answer))
    pool = h2_pool()
    assert (await pool.fetch(request_to(server))).body == BODY + BODY
    exchange = await pool.open(request_to(server))
    pieces = []
    while piece := await exchange.host_loop.arun(exchange.read):
        pieces.append(piece)
    assert b"".join(pieces) == BODY + BODY
    assert server.connections_accepted == 1


async def test_an_empty_frame_is_not_the_end(serve, h2_pool):
    """Scenario 46: ``read`` waits for the next piece of the body."""

    async def answer(stream):
        head = stream.peer.h2.encoder.encode([(":status", "200")])
        await stream.peer.send_frames(
            frames.HeadersFrame(stream.number, data=head, flags=["END_HEADERS"]),
            frames.DataFrame(stream.number),
        )
        await stream.wait_for("go")
        await stream.peer.send_frames(frames.DataFrame(stream.number, data=b"x", flags=["END_STREAM"]))

    server = serve(http2(answer))
    exchange = await h2_pool().open(request_to(server))
    reading = asyncio.create_task(exchange.host_loop.arun(exchange.read))
    server.gate("go").open()
    assert await reading == b"x"
    assert await exchange.host_loop.arun(exchange.read) == b""


async def test_padding_counts_against_the_windows_and_is_given_back(serve, h2_pool):
    """Scenario 46: 1 MB of padding around a small body."""

    async def answer(stream):
        await stream.head(200)
        for _ in range(4_000):
            await stream.data(b"x" * 13, pad=240)
        await stream.data(b"", end=True)

    server = serve(http2(answer))
    assert (await h2_pool().fetch(request_to(server, read=20.0))).body == b"x" * 13 * 4_000


async def test_interleaved_answers_are_kept_apart(serve, h2_pool):
    """Scenario 46: twelve responses, a piece of each in turn."""
    bodies = {f"/{number}": random_bytes(60_000, number) for number in range(12)}

    async def answer(stream):
        await stream.head(200)
        await stream.peer.until(lambda: len(stream.peer.streams) == 12)
        body = bodies[stream.request.target]
        for start in range(0, len(body), 1000):
            await stream.data(body[start : start + 1000])
            await asyncio.sleep(0)
        await stream.data(b"", end=True)

    server = serve(http2(answer))
    pool = h2_pool(max_streams_per_connection=12)
    answers = await asyncio.gather(*calls(pool, server, 12))
    assert [answer.body for answer in answers] == list(bodies.values())


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, {"content-length": "1000"}),
        ("GET", 204, {}),
        ("GET", 304, {"content-length": "1000"}),
        ("GET", 200, {}),
        ("GET", 200, {"content-length": "0"}),
    ],
)
async def test_an_answer_without_body_ends_with_its_head(serve, h2_pool, method, status, headers):
    """Scenario 46: END_STREAM on HEADERS."""

    async def answer(stream):
        await stream.head(status, headers, end=True)

    server = serve(http2(answer))
    pool = h2_pool()
    for _ in range(2):
        whole = await pool.fetch(request_to(server, b"", method=method))
        assert (whole.status, whole.body) == (status, b"")
        assert whole.headers == [(name.encode(), value.encode()) for name, value in headers.items()]
    assert server.connections_accepted == 1


async def test_what_is_sent_is_a_request_of_http2(serve, h2_pool):
    """Scenario 46: names in lower case, Host as :authority, no connection-specific headers."""
    server = serve(http2(reply()))
    extra = {
        "Connection": "keep-alive, x",
        "TE": "gzip",
        "Upgrade": "h2c",
        "Keep-Alive": "5",
        "X-Mine": " v\t",
    }
    await h2_pool().fetch(request_to(server, target="/path?q=1", headers=extra))
    fields = peer(server).streams[1].fields
    assert fields == {
        ":method": "POST",
        ":scheme": "http",
        ":authority": server.authority,
        ":path": "/path?q=1",
        "content-length": "2",
        "x-mine": "v",
    }


async def test_a_head_longer_than_a_frame_continues_in_others(serve, h2_pool):
    """Scenario 46: RFC 9113, section 6.10; the end of the stream is a flag of the first frame."""
    wire = Wire(Recorder())
    wire.open(Recorder(), bytes(40_000), ended=True)
    flags = [frame.flags for frame in frames_in(bytes(wire.outgoing))[-3:]]
    assert flags == [{"END_STREAM"}, set(), {"END_HEADERS"}]
    server = serve(http2(reply(body=b"ok")))
    pool = h2_pool()
    for body in (b"", b"body"):
        request = request_to(server, body=body, headers={"X-Long": "y" * 40_000})
        assert (await pool.fetch(request)).body == b"ok"
        assert (len(server.requests[-1].headers["x-long"]), server.requests[-1].body) == (40_000, body)


# Violations of the protocol: they end the connection.


def respond_then_send(*pieces):
    """Send a response to "/first", and exactly these frames or bytes after it, in one write."""

    async def answer(stream):
        if stream.request.target == "/first":
            await stream.peer.until(lambda: len(stream.peer.streams) == 2)
            stream.peer.h2.send_headers(stream.number, [(":status", "200")])
            stream.peer.h2.send_data(stream.number, b"first", end_stream=True)
            last = stream.peer.streams[3]
            own = [piece(last) if callable(piece) else piece for piece in pieces]
            await stream.peer.send_frames(*own)
        await stream.until(lambda: False)

    return answer


def pushed(stream):
    block = stream.peer.h2.encoder.encode(
        [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/pushed")]
    )
    return frames.PushPromiseFrame(stream.number, promised_stream_id=2, data=block, flags=["END_HEADERS"])


def half_padded(stream):
    return b"\x00\x00\x02\x00\x08" + stream.number.to_bytes(4, "big") + b"\xff\x00"


OK = (":status", "200")
VIOLATIONS = {
    "garbage": respond_then_send(b"\x00\xff this is no HTTP/2 at all" * 10),
    "HTTP/1.1": respond_then_send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "a push": respond_then_send(pushed),
    "a frame too large": respond_then_send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x03"),
    "bad padding": respond_then_send(half_padded),
    "a head that is no HPACK": respond_then_send(
        lambda stream: frames.HeadersFrame(stream.number, data=b"\xff" * 20, flags=["END_HEADERS"])
    ),
    "a head too long": respond_then_send(
        lambda stream: frames.HeadersFrame(
            stream.number,
            data=stream.peer.h2.encoder.encode(
                [(":status", "200"), *[("x", "y" * 2000)] * 40]  # in the table, so it fits in a frame
            ),
            flags=["END_HEADERS"],
        )
    ),
    "headers without end": respond_then_send(
        lambda stream: frames.HeadersFrame(stream.number, data=b""),
        *[lambda stream: frames.ContinuationFrame(stream.number, data=b"")] * 100,
    ),
    "data on a stream that never was": respond_then_send(frames.DataFrame(99, data=b"x")),
    "a head on a stream that never was": respond_then_send(
        lambda stream: frames.HeadersFrame(2, data=stream.peer.h2.encoder.encode([OK]), flags=["END_HEADERS"])
    ),
    "data before the head": respond_then_send(lambda stream: frames.DataFrame(stream.number, data=b"x")),
    "a window of no bytes": respond_then_send(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + b"\x00" * 4),
    "a window of a stream of no bytes": respond_then_send(
        lambda stream: b"\x00\x00\x04\x08\x00" + stream.number.to_bytes(4, "big") + b"\x00" * 4
    ),
    "a window too large": respond_then_send(frames.WindowUpdateFrame(0, window_increment=2**31 - 1)),
    "settings that cannot be": respond_then_send(
        frames.SettingsFrame(0, settings={SettingCodes.MAX_FRAME_SIZE: 1})
    ),
    "settings of half a length": respond_then_send(b"\x00\x00\x03\x04\x00\x00\x00\x00\x00" + b"\x00" * 3),
    "settings of a window too large": respond_then_send(
        frames.SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**31})
    ),
    "settings that make a window too large": respond_then_send(
        lambda stream: frames.WindowUpdateFrame(stream.number, window_increment=2**31 - 70_000),
        frames.SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 100_000}),
    ),
    "settings that allow pushes twice": respond_then_send(
        frames.SettingsFrame(0, settings={SettingCodes.ENABLE_PUSH: 2})
    ),
    "settings of a stream": respond_then_send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x03"),
    "an acknowledgement of settings with content": respond_then_send(
        b"\x00\x00\x06\x04\x01\x00\x00\x00\x00" + b"\x00" * 6
    ),
    "a ping of seven bytes": respond_then_send(b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + b"x" * 7),
    "a ping of a stream": respond_then_send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x03" + b"x" * 8),
    "a GOAWAY of seven bytes": respond_then_send(b"\x00\x00\x07\x07\x00\x00\x00\x00\x00" + b"\x00" * 7),
    "a reset of no stream": respond_then_send(b"\x00\x00\x04\x03\x00\x00\x00\x00\x00" + b"\x00" * 4),
    "a reset of a stream that never was": respond_then_send(frames.RstStreamFrame(99)),
    "a reset of five bytes": respond_then_send(
        lambda stream: b"\x00\x00\x05\x03\x00" + stream.number.to_bytes(4, "big") + b"\x00" * 5
    ),
    "a window of a stream that never was": respond_then_send(
        frames.WindowUpdateFrame(99, window_increment=1)
    ),
    "data without a stream": respond_then_send(b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x"),
    "a head that is only padding": respond_then_send(
        lambda stream: b"\x00\x00\x02\x01\x0c" + stream.number.to_bytes(4, "big") + b"\xff\x00"
    ),
    "a head shorter than its priority": respond_then_send(
        lambda stream: b"\x00\x00\x02\x01\x24" + stream.number.to_bytes(4, "big") + b"\xff\x00"
    ),
    "a head that another stream interrupts": respond_then_send(
        lambda stream: frames.HeadersFrame(stream.number, data=b"\x88"),
        frames.ContinuationFrame(1, data=b"", flags=["END_HEADERS"]),
    ),
    "a head that a ping interrupts": respond_then_send(
        lambda stream: frames.HeadersFrame(stream.number, data=b"\x88"), frames.PingFrame(0)
    ),
    "continuation of nothing": respond_then_send(
        lambda stream: frames.ContinuationFrame(stream.number, data=b"x")
    ),
}


@pytest.mark.parametrize("answer", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_broken_rules_end_the_connection_and_not_what_came_before(serve, h2_pool, answer):
    """Scenario 46: a complete response before the violation is delivered; the next call dials."""
    server = serve(per_connection(http2(answer), http2(reply())))
    pool = h2_pool()
    first = start_call(pool, server, target="/first")
    await server.await_requests(1)
    with pytest.raises((ProtocolError, ReadFailed), match=r"broke the rules of HTTP/2|has closed"):
        await pool.fetch(request_to(server, target="/second", read=5.0))
    assert (await first).body == b"first"
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 2
    await server.await_until(lambda s: s.connections_open == 1)


async def test_more_data_than_the_window_of_a_stream_allows(serve, h2_pool):
    """Scenario 46: a response that its caller does not read; its size in memory stays bounded."""

    async def answer(stream):
        await stream.head(200)
        await stream.peer.send_frames(*[frames.DataFrame(stream.number, data=b"x" * 16_000)] * 60)

    server = serve(http2(answer))
    exchange = await h2_pool().open(request_to(server))
    await until(lambda: exchange.error)
    with pytest.raises(ProtocolError, match="more data than the window of a stream allows"):
        await exchange.host_loop.arun(exchange.read_all)
    await server.await_until(lambda s: s.connections_open == 0)


async def test_a_window_of_a_stream_that_is_too_large_fails_its_call_only(serve, h2_pool):
    """Scenario 46: RFC 9113, section 6.9.1; the other call and the connection continue."""

    async def answer(stream):
        if stream.request.target == "/large":
            await stream.peer.send_frames(frames.WindowUpdateFrame(stream.number, window_increment=2**31 - 1))
            await stream.until(lambda: False)
        await stream.wait_for("go")
        await stream.respond()

    server = serve(http2(answer))
    pool = h2_pool()
    other = start_call(pool, server)
    await server.await_requests(1)
    with pytest.raises(ProtocolError, match="a window of 2147549180 bytes"):
        await pool.fetch(request_to(server, target="/large", read=5.0))
    server.gate("go").open()
    assert (await other).status == 200
    await server.await_until(lambda s: peer(s).streams[3].reset_by_client == ErrorCodes.FLOW_CONTROL_ERROR)
    assert server.connections_accepted == 1


async def test_a_server_that_speaks_http11_to_prior_knowledge(serve, h2_pool):
    """Scenario 46: the call fails at once, with a clear error."""
    server = serve(steps(raw(b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n"), hold))
    with pytest.raises(ProtocolError, match="broke the rules of HTTP/2"):
        await h2_pool().fetch(request_to(server, read=5.0))


async def test_frames_for_a_stream_that_has_ended_are_let_pass(serve, h2_pool):
    """Scenario 46: an end that is sent twice harms no other call (RFC 9113, section 5.1, allows both)."""

    async def answer(stream):
        await stream.respond(body=b"ok")
        head = frames.HeadersFrame(stream.number, data=b"\x88", flags=["END_HEADERS", "END_STREAM"])
        await stream.peer.send_frames(head, frames.DataFrame(stream.number, data=b"x", flags=["END_STREAM"]))

    server = serve(http2(answer))
    pool = h2_pool()
    for _ in range(3):
        assert (await pool.fetch(request_to(server))).body == b"ok"
    assert server.connections_accepted == 1


async def test_frames_for_a_stream_that_was_reset_are_let_pass(serve, h2_pool):
    """Scenario 46: the server may have sent them before the reset arrived (RFC 9113, section 5.1)."""

    async def answer(stream):
        if stream.request.target == "/left":
            await stream.head(200)
            await stream.peer.until(lambda: stream.reset_by_client is not None)
            late = [frames.DataFrame(stream.number, data=b"late"), frames.RstStreamFrame(stream.number)]
            trailers = frames.HeadersFrame(
                stream.number,
                data=stream.peer.h2.encoder.encode([("a", "b")]),
                flags=["END_HEADERS", "END_STREAM"],
            )
            await stream.peer.send_frames(
                *late, trailers, frames.WindowUpdateFrame(stream.number, window_increment=5)
            )
            return
        await stream.respond(body=b"ok", headers={"x-index": "me"})

    server = serve(http2(answer))
    pool = h2_pool()
    for _ in range(3):
        (await pool.open(request_to(server, target="/left"))).close_threadsafe()
        await server.await_until(
            lambda s: list(peer(s).streams.values())[-1].reset_by_client == ErrorCodes.CANCEL
        )
        assert (await pool.fetch(request_to(server))).body == b"ok"
    assert server.connections_accepted == 1


async def test_nothing_is_kept_of_streams_that_are_over(serve, h2_pool):
    """Scenario 46: memory does not grow with the number of calls on a connection, closed early or not."""

    async def answer(stream):
        await stream.head(200, end=stream.number < 20)

    pool, server = h2_pool(), serve(http2(answer))
    for _ in range(20):
        (await pool.open(request_to(server))).close_threadsafe()
    await until(lambda: pool.stats().idle == 1)
    [entry] = entries_of(pool)
    assert entry.connection.wire.next_number == 41
    assert not entry.connection.wire.streams


# Random frames.

NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 7])
BLOCKS = st.sampled_from([b"\x88", b"\x88\x40\x01x\x01y", b"\x89", b"\x82", b"\xff\xff", b""])
FLAGS = st.sets(st.sampled_from(["END_STREAM", "END_HEADERS", "ACK", "PADDED", "PRIORITY"]))


@st.composite
def any_frame(draw):
    """Draw a frame of any type; its flags and content may be invalid for that type."""
    kind = draw(st.integers(0, 11))
    flags = draw(st.integers(0, 255))
    body = draw(
        st.one_of(
            BLOCKS, st.binary(max_size=24), st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big"))
        )
    )
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + draw(NUMBERS).to_bytes(4, "big") + body


class Recorder:
    """A stream, or the receiver of a connection's frames, that does nothing."""

    number = send_window = 0

    def ignore(self, *_, **__):
        pass

    on_head = on_data = on_reset = on_window = on_settings = on_goaway = ignore


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(any_frame(), st.binary(max_size=20)), max_size=12), st.booleans())
def test_whatever_comes_is_handled_or_an_error_of_the_rules(pieces, ended):
    """Scenario 46: for any input, the wire handles a frame or raises BrokenRule."""
    wire, streams = Wire(Recorder()), [Recorder() for _ in range(3)]
    for stream in streams:
        wire.open(stream, b"\x82", ended=ended)
    wire.reset(3, ErrorCode.CANCEL)
    del wire.streams[3]
    try:
        for piece in pieces:
            wire.receive(piece)
    except BrokenRule as error:
        wire.close(error.code)
    assert frames_in(bytes(wire.outgoing))
