"""The frames of HTTP/2: how they are written and read, and the errors that they can carry (RFC 9113)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

__all__ = ["BrokenRule", "ErrorCode", "FrameReader", "frame", "without_padding"]

# The types of frames (RFC 9113, section 6), in the order of their numbers.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

# Flags. The first one means ACK in SETTINGS and PING, and END_STREAM in DATA and HEADERS.
ACK = END_STREAM = 0x01
END_HEADERS = 0x04
PADDED = 0x08
WITH_PRIORITY = 0x20

HEADER = Struct(">BHBBL")  # the length in two parts, type, flags, stream
HEADER_SIZE = 9
MAX_FRAME_SIZE = 16_384  # bytes after the header; the default, which this client does not change
MAX_NUMBER = 2**31 - 1  # the highest number of a stream, and the largest window

# The length that a frame must have, and whether it belongs to a stream or to the connection. None: any.
RULES: dict[int, tuple[int | None, bool | None]] = {
    PRIORITY: (5, True),
    RST_STREAM: (4, True),
    SETTINGS: (None, False),
    PUSH_PROMISE: (None, True),
    PING: (8, False),
    GOAWAY: (None, False),
    WINDOW_UPDATE: (4, None),
    CONTINUATION: (None, True),
}


class ErrorCode(IntEnum):
    """Why a stream or a connection has ended (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13

    @classmethod
    def name_of(cls, code: int) -> str:
        """Return the name of a code, which can be one that the RFC does not define."""
        return cls(code).name if code in cls._value2member_map_ else f"error {code}"


class BrokenRule(Exception):
    """The server broke a rule, and the connection must end (RFC 9113, section 5.4.1).

    ``code``  the reason, which is sent to the server in a GOAWAY frame
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class FrameReader:
    """Cuts received bytes into frames."""

    def __init__(self) -> None:
        self._data = b""
        self._start = 0  # where the next frame begins in ``_data``

    @property
    def incomplete_stream(self) -> int:
        """The stream of a frame of which only a part was received; 0 if there is none."""
        if len(self._data) - self._start < HEADER_SIZE:
            return 0
        return int(HEADER.unpack_from(self._data, self._start)[4]) & MAX_NUMBER

    def add(self, data: bytes) -> None:
        """Add received bytes."""
        self._data = self._data[self._start :] + data if self._start < len(self._data) else data
        self._start = 0

    def next(self) -> tuple[int, int, int, bytes] | None:
        """Return the next frame: type, flags, stream and content. Returns None if it is not complete.

        Raises BrokenRule if the frame is too long, which its header shows, or breaks one of the ``RULES``.
        """
        data, start = self._data, self._start + HEADER_SIZE
        if len(data) < start:
            return None
        high, low, kind, flags, number = HEADER.unpack_from(data, self._start)
        size = high << 16 | low
        if size > MAX_FRAME_SIZE:
            raise BrokenRule(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
        end = start + size
        if len(data) < end:
            return None
        number &= MAX_NUMBER
        if kind > HEADERS:
            _check(kind, number, size)
        self._start = end
        return kind, flags, number, data[start:end]


def _check(kind: int, number: int, size: int) -> None:
    length, of_stream = RULES.get(kind, (None, None))
    if length is not None and size != length:
        raise BrokenRule(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {size} bytes")
    if of_stream is not None and of_stream != (number > 0):
        raise BrokenRule(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on stream {number}")


def frame(kind: int, flags: int, number: int, content: bytes | memoryview = b"") -> bytes:
    """Return a frame as bytes."""
    size = len(content)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, number) + content


def without_padding(content: bytes) -> bytes:
    """Return the content of a padded frame: its first byte is the length of the padding at its end.

    Raises BrokenRule if the padding is longer than the rest of the frame (RFC 9113, section 6.1).
    """
    if not content or content[0] >= len(content):
        raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "padding that is longer than its frame")
    return content[1 : len(content) - content[0]]
