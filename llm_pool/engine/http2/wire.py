"""h2's connection state machine, with the changes that this client needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.exceptions import (
    DenialOfServiceError,
    FrameTooLargeError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.exceptions import HyperframeError

from .encoder import HeadEncoder

__all__ = ["Wire"]

STREAM_WINDOW = 512 * 1024  # bytes of a response that the server can send before they are read
CONNECTION_WINDOW = 16 * 1024 * 1024  # for all streams; enlarged on receipt: a slow reader stops no other
MAX_HEADER_LIST = 64 * 1024
MAX_IDLE_FRAMES = 1000  # about 20 ms of work

CONFIG = H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,  # ``engine.head.validate`` has validated the headers
    normalize_outbound_headers=False,
    validate_inbound_headers=False,  # ``read_fields`` does: an error then fails a stream, not the connection
    normalize_inbound_headers=False,
)


class _Stream(H2Stream):
    """A stream of h2 that does not check the Content-Length of a response.

    ``HTTP2Stream`` does. Only the stream must fail (RFC 9113, section 8.1.1); h2 would end the connection.
    """

    def _initialize_content_length(self, headers: object) -> None:
        pass


class Wire(H2Connection):
    """The state of one HTTP/2 connection. Takes received bytes; returns events and bytes to send. No I/O.

    ``idle_frames``  the number of frames received since the owner has set it to 0: each second, and when a
                     response or an upload makes progress
    """

    MAX_CLOSED_STREAMS = 4096  # closed streams whose late frames are recognised; h2's 65,536 use megabytes

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.encoder = HeadEncoder()
        self.idle_frames = 0
        self.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            },
        )
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def _begin_new_stream(self, *args: Any) -> H2Stream:
        stream = super()._begin_new_stream(*args)
        stream.__class__ = _Stream
        return stream

    @property
    def unsent(self) -> int:
        """How many bytes ``data_to_send`` would return."""
        return len(self._data_to_send)

    @property
    def incomplete_stream(self) -> int:
        """The stream of whose frame, or block of headers, only a part was received; 0 if there is none."""
        buffer = self.incoming_buffer
        if buffer._headers_buffer:  # CONTINUATION frames follow (RFC 9113, section 6.10)
            return int(buffer._headers_buffer[0].stream_id)
        return int.from_bytes(buffer._data[5:9], "big") & 0x7FFF_FFFF if len(buffer._data) >= 9 else 0

    @property
    def open_outbound_streams(self) -> int:
        """The number of open streams. O(1), since ``forget`` removes closed ones; h2 counts each time."""
        return len(self.streams)

    def reset(self, number: int, code: ErrorCodes) -> None:
        """Reset stream ``number`` with the error ``code``, unless the stream is closed."""
        stream = self.streams.get(number)
        if stream is not None and not stream.closed:
            self.reset_stream(number, code)

    def forget(self, number: int) -> None:
        """Remove stream ``number`` if it is closed. h2 then keeps only how the stream was closed."""
        stream = self.streams.get(number)
        if stream is not None and stream.closed:
            del self.streams[number]
            self._closed_streams[number] = stream.closed_by

    def receive(self, data: bytes) -> Iterator[Event]:
        """Yield the events of received bytes. Raises h2's ProtocolError if a frame breaks the rules.

        Processes one frame at a time. h2's own ``receive_data`` processes all frames before it returns the
        first event, and drops the events of the valid frames if an invalid one follows.
        """
        self.incoming_buffer.add_data(data)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size
        try:
            for frame in self.incoming_buffer:
                yield from self._handle_frame(frame)
            self._check_length()
        except HyperframeError as error:
            raise ProtocolError(f"a frame that cannot be read: {error}") from error

    def _check_length(self) -> None:
        """Raise FrameTooLargeError for a frame that is too long, as soon as its header has arrived.

        h2 would wait for the whole frame.
        """
        length = int.from_bytes(self.incoming_buffer._data[:3], "big")
        if length > self.max_inbound_frame_size and len(self.incoming_buffer._data) >= 3:
            raise FrameTooLargeError(f"a frame of {length} bytes")

    def _handle_frame(self, frame: Any) -> list[Event]:
        """Process a frame and return its events, as h2's ``_receive_frame`` does, with three differences.

        The frame is not formatted for a log. ``_handle_late_frame`` handles a frame for a stream that was
        reset. More than ``MAX_IDLE_FRAMES`` frames since ``idle_frames`` was set to 0 are an error.
        """
        self.idle_frames += 1
        if self.idle_frames > MAX_IDLE_FRAMES:
            raise DenialOfServiceError(f"over {MAX_IDLE_FRAMES} frames in a second that carry no response")
        try:
            frames, events = self._frame_dispatch_table[type(frame)](frame)
        except (StreamClosedError, StreamIDTooLowError) as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            return self._handle_late_frame(error)
        self._prepare_for_sending(frames)
        return list(events)

    def _handle_late_frame(self, error: StreamClosedError | StreamIDTooLowError) -> list[Event]:
        """Ignore a frame that came after its stream was reset: return no events.

        The server can have sent the frame before it received the reset (RFC 9113, section 5.1). Late DATA
        frames do not come here: h2 handles them. Raises ``error`` if h2 has reset the stream only now,
        because the frame broke the rules: the connection then ends.
        """
        if getattr(error, "_events", None):
            raise error
        return []

    def _receive_headers_frame(self, frame: Any) -> Any:
        """Do the same as h2, but raise ProtocolError if the server opens a stream.

        A server can open a stream only by server push, which this client has disabled (RFC 9113, section
        8.4). h2 would accept the stream.
        """
        if not frame.stream_id % 2:
            raise ProtocolError(f"the server opened stream {frame.stream_id}, which was not promised")
        return super()._receive_headers_frame(frame)

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        """Return the event of a GOAWAY frame: ConnectionTerminated. The connection stays open.

        Streams up to ``last_stream_id`` can still be answered (RFC 9113, section 6.8). h2 itself would close
        the connection.
        """
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]
