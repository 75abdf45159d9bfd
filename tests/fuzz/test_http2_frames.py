"""For any frames from an HTTP/2 server, each caller soon gets a response or one of the package's errors.

``LLM_POOL_EXAMPLES`` sets how many examples are tried (default: 200).
"""

from __future__ import annotations

import asyncio
from typing import Any

from hpack import Encoder
from hyperframe import frame as frames
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.engine.http2.connection import HTTP2Connection
from llm_pool.engine.loops.host_loop import HostLoop
from tests.fuzz.test_response_bytes import READERS, Owner, Wire, fuzzed, run, until, whole_or_closed

__all__ = ["run"]

CALLS = 3
STREAMS = st.sampled_from([1, 3, 5, 1, 3, 5, 1, 3, 5, 0, 2, 7])
NUMBERS = st.sampled_from([0, 1, 5, 100, 16_384, 65_535, 2**31 - 1, 2**31])
FLAGS = st.sets(st.sampled_from(["END_STREAM", "END_HEADERS", "END_HEADERS", "PADDED", "PRIORITY"]))
STATUSES = st.sampled_from([b"200", b"200", b"200", b"204", b"304", b"100", b"103", b"101", b"okay"])
NAMES = st.sampled_from([b":status", b"content-length", b"content-encoding", b"x", b"", b"X y"])
VALUES = st.sampled_from([b"", b"0", b"5", b"5", b"gzip", b"a\nb"])
BODIES = st.sampled_from([b"", b"hello", b"x" * 1000]) | st.binary(max_size=20)


@st.composite
def any_frame(draw: st.DrawFn, encoder: Encoder) -> bytes:
    """A frame that a server may send, or one that it must not send."""
    number, value = draw(STREAMS), draw(NUMBERS)
    stream = number or 1
    frame: Any
    match draw(st.integers(0, 11)):
        case 0 | 1 | 2:
            fields = [(b":status", draw(STATUSES)), *draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))]
            frame = frames.HeadersFrame(stream, encoder.encode(fields), flags=draw(FLAGS))
        case 3 | 4:
            frame = frames.DataFrame(stream, draw(BODIES), flags=draw(FLAGS) - {"END_HEADERS", "PRIORITY"})
        case 5:
            frame = frames.RstStreamFrame(stream, draw(st.integers(0, 15)))
        case 6:
            frame = frames.WindowUpdateFrame(number, max(1, value % 2**31))
        case 7:
            frame = frames.SettingsFrame(0, {draw(st.integers(0, 7)): value})
        case 8:
            frame = frames.GoAwayFrame(0, last_stream_id=number, error_code=value % 15)
        case 9:
            frame = frames.ContinuationFrame(stream, draw(BODIES), flags=draw(FLAGS) & {"END_HEADERS"})
        case _:
            content = draw(st.binary(max_size=9))
            kind, flags = draw(st.integers(0, 255)), draw(st.integers(0, 255))
            return (
                len(content).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + content
            )
    return frame.serialize()


@st.composite
def segments(draw: st.DrawFn) -> list[bytes]:
    """Frames in pieces, as a network may deliver them."""
    encoder = Encoder()
    data = b"".join([draw(any_frame(encoder)) for _ in range(draw(st.integers(1, 12)))])
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return [piece for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if (piece := data[a:b])]


class HTTP2Owner(Owner):
    """Records the events of a connection that carries several calls."""

    def resized(self, entry: Any, capacity: int) -> None:
        assert 0 <= capacity <= CALLS

    def retired(self, entry: Any, reason: str) -> None:
        assert reason in ("goaway", "unclean")


class HTTP2Wire(Wire):
    """A connection that speaks HTTP/2 on one end of a socket pair, and the test on the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.owner = HTTP2Owner()
        self.connection = HTTP2Connection(HostLoop(loop), self.owner, CALLS)  # type: ignore[assignment]
        self.connection.entry = object()  # type: ignore[assignment]


@fuzzed
@given(pieces=segments(), read=READERS, ends=st.booleans())
def test_any_frames_are_responses_or_errors_of_ours(
    run: Any, pieces: list[bytes], read: Any, ends: bool
) -> None:
    """Scenario 46: no other exception and no hang; the place of each call is released exactly once."""

    async def example() -> None:
        async with HTTP2Wire(asyncio.get_running_loop()) as wire:
            exchanges = [wire.start(method) for method in (b"POST", b"GET", b"HEAD")]
            readings = [asyncio.ensure_future(read(exchange)) for exchange in exchanges]
            await wire.send(pieces)
            if ends:
                wire.end()
            for exchange, reading in zip(exchanges, readings, strict=True):
                await whole_or_closed(exchange, reading)
            await until(lambda: wire.owner.heard.count(True) == CALLS)
        assert wire.owner.heard.count(None) <= 1 and len(wire.owner.heard) <= CALLS + 1

    run(example())
