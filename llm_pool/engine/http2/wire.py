"""h2, with what this client needs done otherwise than h2 does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, StreamReset
from h2.exceptions import (
    FrameTooLargeError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.settings import SettingCodes, Settings
from hyperframe.exceptions import HyperframeError

__all__ = ["Wire"]

STREAM_WINDOW = 512 * 1024  # bytes the server may send ahead of a slow reader
CONNECTION_WINDOW = 16 * 1024 * 1024  # of all streams together: a slow reader must not stop the others
MAX_HEADER_LIST = 64 * 1024

CONFIG = H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,  # ``engine.head.validate`` has seen to it
    normalize_outbound_headers=False,
    validate_inbound_headers=False,  # ``read_fields`` does, and spares the other streams
    normalize_inbound_headers=False,
)


class Wire(H2Connection):
    """The state of one HTTP/2 connection: frames in, events out, and the bytes to send. No I/O."""

    MAX_CLOSED_STREAMS = 4096  # those that late frames are recognised by; h2 keeps 65,536, in megabytes

    def __init__(self) -> None:
        super().__init__(CONFIG)
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

    @property
    def unsent(self) -> int:
        """Bytes that wait for ``data_to_send``."""
        return len(self._data_to_send)

    @property
    def open_outbound_streams(self) -> int:
        """h2 looks at every stream for each new one; here those that are over have been forgotten."""
        return len(self.streams)

    def reset(self, number: int, code: ErrorCodes) -> None:
        """Reset a stream, unless it has come to its end."""
        stream = self.streams.get(number)
        if stream is not None and not stream.closed:
            self.reset_stream(number, code)

    def forget(self, number: int) -> None:
        """A stream is over."""
        stream = self.streams.get(number)
        if stream is not None and stream.closed:
            del self.streams[number]
            self._closed_streams[number] = stream.closed_by

    def receive(self, data: bytes) -> Iterator[Event]:
        """What the bytes mean, frame by frame: h2 is never ahead of what its user has heard.

        ``receive_data`` takes in all frames before the first event is seen, and loses the events of good
        frames when a bad one follows. Raises h2's ProtocolError.
        """
        self.incoming_buffer.add_data(data)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size
        try:
            for frame in self.incoming_buffer:
                yield from self._take(frame)
            self._check_length()
        except HyperframeError as error:
            raise ProtocolError(f"a frame that cannot be read: {error}") from error

    def _check_length(self) -> None:
        """Of a frame whose beginning is there: h2 would wait for all of it, and garbage may promise much."""
        length = int.from_bytes(self.incoming_buffer._data[:3], "big")
        if length > self.max_inbound_frame_size and len(self.incoming_buffer._data) >= 3:
            raise FrameTooLargeError(f"a frame of {length} bytes")

    def _take(self, frame: Any) -> list[Event]:
        """As ``_receive_frame``, which spells out every frame for a log that nobody keeps."""
        try:
            frames, events = self._frame_dispatch_table[type(frame)](frame)
        except InvalidBodyLengthError:
            return self._refuse_body(frame)
        except (StreamClosedError, StreamIDTooLowError) as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            return self._late(error)
        self._prepare_for_sending(frames)
        return list(events)

    def _refuse_body(self, frame: Any) -> list[Event]:
        """A body not of the promised length ends its stream (section 8.1.1), and for h2 the connection."""
        self.reset(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)
        self.acknowledge_received_data(frame.flow_controlled_length, frame.stream_id)
        return [
            StreamReset(stream_id=frame.stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False)
        ]

    def _late(self, error: StreamClosedError | StreamIDTooLowError) -> list[Event]:
        """A frame of a stream that was reset: it was on its way, or the server broke the rules just now."""
        events = list(getattr(error, "_events", []))
        if events:
            self.reset_stream(error.stream_id, ErrorCodes.STREAM_CLOSED)
        return events

    def _receive_headers_frame(self, frame: Any) -> Any:
        """h2 lets the server open streams; by section 8.4 they come after a promise only."""
        if not frame.stream_id % 2:
            raise ProtocolError(f"a stream {frame.stream_id} that nobody asked for")
        return super()._receive_headers_frame(frame)

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        """h2 takes it for the end; by section 6.8, the streams below its mark go on."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]
