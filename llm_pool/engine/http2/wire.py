"""The client's side of the protocol on one connection (RFC 9113): frames in, frames out, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import ClassVar, Generic, Protocol, TypeVar

from ..head import Headers
from .block_decoder import MAX_HEADER_LIST, TABLE_SIZE, BlockDecoder
from .block_encoder import WITHOUT_TABLE
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME_SIZE,
    MAX_NUMBER,
    PADDED,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    BrokenRule,
    ErrorCode,
    FrameReader,
    frame,
    without_padding,
)

__all__ = ["Wire"]

STREAM_WINDOW = 512 * 1024  # bytes of a response that the server can send before they are read
CONNECTION_WINDOW = 16 * 1024 * 1024  # for all streams; enlarged on receipt: a slow reader stops no other
DEFAULT_WINDOW = 65_535  # (RFC 9113, section 6.9.2)
MAX_IDLE_FRAMES = 1000  # about 20 ms of work
MAX_BLOCK_FRAMES = 64  # frames of one field block

# The parameters of SETTINGS frames (RFC 9113, section 6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, FRAME_SIZE, HEADER_LIST_SIZE = 4, 5, 6
RANGES = {
    ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    INITIAL_WINDOW_SIZE: (0, MAX_NUMBER, ErrorCode.FLOW_CONTROL_ERROR),
    FRAME_SIZE: (MAX_FRAME_SIZE, 2**24 - 1, ErrorCode.PROTOCOL_ERROR),
}

SETTING = Struct(">HL")
NUMBER = Struct(">L")
TWO_NUMBERS = Struct(">LL")

PREFACE = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(
            *(SETTINGS, 0, 0),
            SETTING.pack(ENABLE_PUSH, 0)
            + SETTING.pack(INITIAL_WINDOW_SIZE, STREAM_WINDOW)
            + SETTING.pack(HEADER_LIST_SIZE, MAX_HEADER_LIST),
        ),
        frame(WINDOW_UPDATE, 0, 0, NUMBER.pack(CONNECTION_WINDOW - DEFAULT_WINDOW)),
    )
)


class WireStream(Protocol):
    """What the wire uses of a stream.

    ``number``       its number; set by ``Wire.open``
    ``send_window``  how many bytes the server accepts on it; can be negative (RFC 9113, section 6.9.2)
    ``on_head``      a head: of an interim response, of the response, or its trailers
    ``on_data``      a DATA frame; ``size`` is its length for flow control, with its padding
    ``on_reset``     a RST_STREAM frame
    ``on_window``    the server accepts ``growth`` more bytes
    """

    number: int
    send_window: int

    def on_head(self, fields: Headers, *, ended: bool) -> None: ...
    def on_data(self, data: bytes, size: int, *, ended: bool) -> None: ...
    def on_reset(self, code: int) -> None: ...
    def on_window(self, growth: int) -> None: ...


class Receiver(Protocol):
    """What the wire reports of the connection: settings, a larger window, and the server's GOAWAY.

    Streams above ``last`` were not processed (RFC 9113, section 6.8).
    """

    def on_settings(self) -> None: ...
    def on_window(self) -> None: ...
    def on_goaway(self, last: int, code: int) -> None: ...


S = TypeVar("S", bound=WireStream)


class Wire(Generic[S]):
    """The state of one HTTP/2 connection.

    ``receive`` takes received bytes, and calls the stream or the receiver that each frame is for. The other
    methods make frames, which wait in ``outgoing``.

    ``streams``         the open streams, by number
    ``next_number``     the number of the next stream
    ``max_streams``     how many streams the server allows at a time
    ``max_frame_size``  how many bytes the server accepts in a frame
    ``send_window``     how many bytes of DATA frames the server accepts on the whole connection
    ``idle_frames``     the number of frames received since it was set to 0: each second, and when a response
                        or an upload makes progress
    ``outgoing``        the bytes to send; their owner sends and removes them
    ``closed``          whether the connection has ended: received frames are not handled any more
    """

    def __init__(self, receiver: Receiver) -> None:
        self.streams: dict[int, S] = {}
        self.next_number = 1
        self.max_streams = MAX_NUMBER
        self.max_frame_size = MAX_FRAME_SIZE
        self.send_window = DEFAULT_WINDOW
        self.idle_frames = 0
        self.closed = False
        self._receiver = receiver
        self._initial_window = DEFAULT_WINDOW  # the ``send_window`` of a new stream
        self._unacknowledged = 0  # received bytes that were not added to the connection's window again yet
        self.outgoing = bytearray(PREFACE)
        self._reader = FrameReader()
        self._decoder = BlockDecoder()
        self._block: list[bytes] = []  # the parts of a field block that is not complete
        self._block_start = (0, 0)  # stream and flags of the frame that began ``_block``
        self._is_table_smaller = False  # whether the server has made the encoder's table smaller

    # Sending

    def open(self, stream: S, block: bytes, *, ended: bool) -> None:
        """Open a stream: give it its number, and send the head of its request, a field block.

        ``ended``: whether the request has no body. A block that is longer than a frame continues in others.
        """
        number = stream.number = self.next_number
        self.next_number += 2
        stream.send_window = self._initial_window
        self.streams[number] = stream
        if self._is_table_smaller:
            self._is_table_smaller = False
            block = WITHOUT_TABLE + block
        kind, flags, size = HEADERS, END_STREAM if ended else 0, self.max_frame_size
        while len(block) > size:
            self.outgoing += frame(kind, flags, number, block[:size])
            kind, flags, block = CONTINUATION, 0, block[size:]
        self.outgoing += frame(kind, flags | END_HEADERS, number, block)

    def send_data(self, stream: S, data: bytes | memoryview, *, ended: bool) -> None:
        """Send a part of a request's body. It must fit in a frame, and in both windows."""
        self.send_window -= len(data)
        stream.send_window -= len(data)
        self.outgoing += frame(DATA, END_STREAM if ended else 0, stream.number, data)

    def enlarge_window(self, number: int, size: int) -> None:
        """Let the server send ``size`` more bytes on a stream, or on the connection if ``number`` is 0."""
        self.outgoing += frame(WINDOW_UPDATE, 0, number, NUMBER.pack(size))

    def ping(self) -> None:
        """Send a PING frame."""
        self.outgoing += frame(PING, 0, 0, b"llm_pool")

    def reset(self, number: int, code: ErrorCode) -> None:
        """Send RST_STREAM for an open stream (RFC 9113, section 6.4)."""
        self.outgoing += frame(RST_STREAM, 0, number, NUMBER.pack(code))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Send GOAWAY (RFC 9113, section 6.8). No received frame is handled any more."""
        self.outgoing += frame(GOAWAY, 0, 0, TWO_NUMBERS.pack(0, code))
        self.closed = True

    # Receiving

    @property
    def incomplete_stream(self) -> int:
        """The stream of whose frame, or field block, only a part was received; 0 if there is none."""
        return self._block_start[0] if self._block else self._reader.incomplete_stream

    def receive(self, data: bytes) -> None:
        """Handle received bytes, frame by frame. Raises BrokenRule if a frame breaks the rules.

        Raises BrokenRule too if more than ``MAX_IDLE_FRAMES`` frames came since ``idle_frames`` was set to 0.
        """
        reader = self._reader
        reader.add(data)
        while not self.closed and (received := reader.next()):
            kind, flags, number, content = received
            self.idle_frames += 1
            if self.idle_frames > MAX_IDLE_FRAMES:
                text = f"over {MAX_IDLE_FRAMES} frames in a second that carry no response"
                raise BrokenRule(ErrorCode.ENHANCE_YOUR_CALM, text)
            if self._block and (kind, number) != (CONTINUATION, self._block_start[0]):
                raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "a head that other frames interrupt")
            handler = self._HANDLERS.get(kind)
            if handler is not None:  # frames of other types are ignored (RFC 9113, section 5.5)
                handler(self, flags, number, content)

    def _on_data(self, flags: int, number: int, content: bytes) -> None:
        size = len(content)
        self._unacknowledged += size
        if self._unacknowledged >= CONNECTION_WINDOW // 4:
            self.enlarge_window(0, self._unacknowledged)
            self._unacknowledged = 0
        if flags & PADDED:
            content = without_padding(content)
        if stream := self._stream(number):
            if content:
                self.idle_frames = 0
            stream.on_data(content, size, ended=flags & END_STREAM > 0)

    def _on_headers(self, flags: int, number: int, content: bytes) -> None:
        if flags & PADDED:
            content = without_padding(content)
        if flags & WITH_PRIORITY:
            if len(content) < 5:
                raise BrokenRule(ErrorCode.FRAME_SIZE_ERROR, "a head shorter than its priority")
            content = content[5:]
        if flags & END_HEADERS:
            self._on_block(flags, number, content)
        else:
            self._block, self._block_start = [content], (number, flags)

    def _on_continuation(self, flags: int, number: int, content: bytes) -> None:
        if not self._block:
            raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "the continuation of no head")
        self._block.append(content)
        if len(self._block) > MAX_BLOCK_FRAMES:
            raise BrokenRule(ErrorCode.ENHANCE_YOUR_CALM, f"a head in more than {MAX_BLOCK_FRAMES} frames")
        if flags & END_HEADERS:
            block, self._block = b"".join(self._block), []
            self._on_block(self._block_start[1], number, block)

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        fields = self._decoder.decode(block)  # of a late head too: later blocks depend on it
        if stream := self._stream(number):
            stream.on_head(fields, ended=flags & END_STREAM > 0)

    def _on_rst_stream(self, flags: int, number: int, content: bytes) -> None:
        if stream := self._stream(number):
            stream.on_reset(*NUMBER.unpack(content))

    def _on_settings(self, flags: int, number: int, content: bytes) -> None:
        if len(content) % SETTING.size or (flags & ACK and content):
            raise BrokenRule(ErrorCode.FRAME_SIZE_ERROR, f"settings of {len(content)} bytes")
        if flags & ACK:
            return
        settings: dict[int, int] = dict(SETTING.iter_unpack(content))
        for name, (low, high, code) in RANGES.items():
            if not low <= settings.get(name, low) <= high:
                raise BrokenRule(code, f"the setting {name} with the value {settings[name]}")
        self.max_streams = settings.get(MAX_CONCURRENT_STREAMS, self.max_streams)
        self.max_frame_size = settings.get(FRAME_SIZE, self.max_frame_size)
        self._is_table_smaller |= settings.get(HEADER_TABLE_SIZE, TABLE_SIZE) < TABLE_SIZE
        self._set_initial_window(settings.get(INITIAL_WINDOW_SIZE, self._initial_window))
        self.outgoing += frame(SETTINGS, ACK, 0)
        self._receiver.on_settings()

    def _set_initial_window(self, size: int) -> None:
        """Change the windows of all streams by as much (RFC 9113, section 6.9.2)."""
        growth, self._initial_window = size - self._initial_window, size
        for stream in self.streams.values():
            stream.send_window = _enlarged(stream.send_window, growth)

    def _on_push_promise(self, flags: int, number: int, content: bytes) -> None:
        raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "a push, which the client's settings forbid")

    def _on_ping(self, flags: int, number: int, content: bytes) -> None:
        if not flags & ACK:
            self.outgoing += frame(PING, ACK, 0, content)

    def _on_goaway(self, flags: int, number: int, content: bytes) -> None:
        if len(content) < TWO_NUMBERS.size:
            raise BrokenRule(ErrorCode.FRAME_SIZE_ERROR, f"a GOAWAY frame of {len(content)} bytes")
        last, code = TWO_NUMBERS.unpack_from(content)
        self._receiver.on_goaway(last & MAX_NUMBER, code)

    def _on_window_update(self, flags: int, number: int, content: bytes) -> None:
        growth = NUMBER.unpack(content)[0] & MAX_NUMBER
        if not growth:
            raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "a window that grows by 0 bytes")
        if not number:
            self.send_window = _enlarged(self.send_window, growth)
            self._receiver.on_window()
        elif stream := self._stream(number):
            stream.on_window(growth)

    def _stream(self, number: int) -> S | None:
        """Return an open stream, or None if it has closed: late frames are ignored (RFC 9113, section 5.1).

        Raises BrokenRule if the client has not opened it.
        """
        stream = self.streams.get(number)
        if stream is None and (number >= self.next_number or not number % 2):
            text = f"a frame on stream {number}, which the client has not opened"
            raise BrokenRule(ErrorCode.PROTOCOL_ERROR, text)
        return stream

    _HANDLERS: ClassVar[dict[int, Callable[[Wire[S], int, int, bytes], None]]] = {
        DATA: _on_data,
        HEADERS: _on_headers,
        RST_STREAM: _on_rst_stream,
        SETTINGS: _on_settings,
        PUSH_PROMISE: _on_push_promise,
        PING: _on_ping,
        GOAWAY: _on_goaway,
        WINDOW_UPDATE: _on_window_update,
        CONTINUATION: _on_continuation,
    }


def _enlarged(window: int, growth: int) -> int:
    if window + growth > MAX_NUMBER:
        raise BrokenRule(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {window + growth} bytes")
    return window + growth
