"""One stream of an HTTP/2 connection, with the upload, flow control and deadlines of its exchange."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from llm_pool.exceptions import LLMPoolError, ProtocolError

from ..deadlines import deadline_of, is_past_total, timeout_error
from ..framing import Framing
from ..head import Headers
from ..watchdog import Watchdog
from .frames import MAX_NUMBER, BrokenRule, ErrorCode
from .head import check_trailers, content_length, read_headers, read_status
from .wire import STREAM_WINDOW

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..loops.host_loop import HostLoop
    from .wire import Wire

__all__ = ["HTTP2Stream"]

SEND_HIGH_WATER = 256 * 1024  # bytes of an upload that are queued before the caller has to wait
WINDOW_UPDATE_SIZE = 128 * 1024  # bytes received before a WINDOW_UPDATE lets the server send as many more


class StreamConnection(Protocol):
    """The methods and attributes of an HTTP/2 connection that its streams use."""

    host_loop: HostLoop
    wire: Wire[HTTP2Stream]

    def is_open(self, stream: HTTP2Stream) -> bool: ...
    def flush(self) -> None: ...
    def queue_upload(self, stream: HTTP2Stream) -> None: ...
    def release(self, stream: HTTP2Stream) -> None: ...
    def reset(self, stream: HTTP2Stream, code: ErrorCode = ...) -> None: ...
    def received_part_at(self, stream: HTTP2Stream) -> float: ...
    def retire_if_silent(self, since: float) -> None: ...


class HTTP2Stream:
    """Carries one exchange. The stream ends when its connection's ``release`` or ``reset`` is called.

    ``exchange``     the exchange; set after the stream was made
    ``framing``      checks the length of a body that follows piece by piece; set for such a body only
    ``connection``   the connection that it belongs to
    ``number``       its number on the connection; 0 before it is open, negative if the connection was closing
    ``send_window``  how many bytes of the request's body the server accepts now
    ``watchdog``     the timer of the exchange's timeouts
    """

    exchange: Exchange
    framing: Framing

    def __init__(self, connection: StreamConnection) -> None:
        self.connection = connection
        self.number = 0
        self.send_window = 0
        self.watchdog = Watchdog(connection.host_loop.loop, self._timed_out)
        self._watched_since = 0.0
        self._outgoing: deque[memoryview] = deque()  # the parts of the body that are still to be sent
        self._queued = 0  # bytes in ``_outgoing``
        self._sent = 0  # bytes of the body sent so far
        self._sent_at_watch = 0  # ``_sent`` when the deadline was set, to notice progress
        self._upload_queued = False  # whether it is in the connection's queue of uploads
        self._body_ended = False  # whether no more parts follow
        self._end_sent = False  # whether END_STREAM was sent
        self._has_head = False  # whether the head of the response has come
        self._content_length: int | None = None
        self._received = 0  # bytes of the response's body
        self._unacknowledged = 0  # received bytes that were not added to the stream's window again yet
        self._paused = False

    # For the exchange

    @property
    def has_room(self) -> bool:
        return self._queued < SEND_HIGH_WATER

    def watch(self, exchange: Exchange) -> None:
        self._sent_at_watch = self._sent
        self._watched_since = self.connection.host_loop.loop.time()
        writing = exchange.awaited == "room" or self._queued > 0
        self.watchdog.watch(deadline_of(exchange, self._watched_since, writing=writing))

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        if not self.framing.chunked:
            self.framing.frame(data)
        if data:
            self._queue_data(data)

    def end_body(self, exchange: Exchange) -> None:
        self.framing.end()
        self._body_ended = True
        if not self._outgoing and not self._end_sent and self.connection.is_open(self):
            self._end_sent = True
            self.connection.wire.send_data(self, b"", ended=True)
            self.connection.flush()

    def pause(self, exchange: Exchange) -> None:
        self._paused = True

    def resume(self, exchange: Exchange) -> None:
        self._paused = False
        self._update_window()

    def cancel(self, exchange: Exchange) -> None:
        self.connection.reset(self)

    # For the connection

    def send_complete_body(self, body: bytes) -> None:
        """Send the whole body of the request. ``body`` is ``b""`` if the request has none."""
        self._body_ended = True
        if body:
            self._queue_data(body)
        else:
            self._end_sent = True  # the head carries END_STREAM

    def on_head(self, fields: Headers, *, ended: bool) -> None:
        """Take an interim response, the head of the response, or its trailers (RFC 9113, section 8.1)."""
        try:
            if self._has_head:
                self._take_trailers(fields, ended=ended)
            else:
                self._take_head(fields, ended=ended)
        except ProtocolError as error:
            self._reject_response(str(error))
            return
        if ended:
            self._on_end()

    def _take_head(self, fields: Headers, *, ended: bool) -> None:
        exchange, status = self.exchange, read_status(fields)
        if status < 200:
            if ended:
                raise ProtocolError(f"an interim response with the status {status} that ends the response")
            self.on_progress()
            return
        exchange.answered = self._has_head = True
        self.connection.wire.idle_frames = 0
        headers = read_headers(fields)
        self._content_length = content_length(exchange.request, status, headers)
        exchange.on_head(status, b"", b"HTTP/2", headers)

    def _take_trailers(self, fields: Headers, *, ended: bool) -> None:
        check_trailers(fields)
        if not ended:
            raise ProtocolError("trailers that do not end the response")

    def on_data(self, data: bytes, size: int, *, ended: bool) -> None:
        """Pass ``data`` to the exchange. Enlarge the stream's window after ``WINDOW_UPDATE_SIZE`` bytes.

        ``size``: the flow-controlled length of the DATA frame, which includes padding. ``ended``: whether the
        frame ends the response. If so, or while reading is paused, the window is not enlarged. Raises
        BrokenRule if the server has not sent the head yet, or sends more than the window allows.
        """
        if not self._has_head:
            raise BrokenRule(ErrorCode.PROTOCOL_ERROR, "DATA before the head of the response")
        self._received += len(data)
        self._unacknowledged += size
        if self._unacknowledged > STREAM_WINDOW:
            raise BrokenRule(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of a stream allows")
        if self._content_length is not None and self._received > self._content_length:
            self._reject_length()
            return
        if data:
            self.exchange.on_data(data)
        if ended:
            self._on_end()
            return
        self.on_progress()
        if self._unacknowledged >= WINDOW_UPDATE_SIZE and not self._paused:
            self._update_window()

    def on_progress(self) -> None:
        """Restart the read timeout: an interim response or a DATA frame has arrived."""
        if not self._queued:
            self.exchange.on_progress()

    def on_reset(self, code: int) -> None:
        origin, name = self.exchange.request.origin, ErrorCode.name_of(code)
        self.exchange.refused = code == ErrorCode.REFUSED_STREAM
        self.fail(ProtocolError(f"{origin} reset the call: {name}"))

    def on_window(self, growth: int) -> None:
        self.send_window += growth
        if self.send_window > MAX_NUMBER:
            self._reject_response(f"a window of {self.send_window} bytes", ErrorCode.FLOW_CONTROL_ERROR)
            return
        self.resume_upload()

    def _on_end(self) -> None:
        if self._content_length is not None and self._received < self._content_length:
            self._reject_length()
            return
        if self._end_sent:
            self.connection.release(self)
        else:
            self.connection.reset(self)  # an early response: the rest of the upload is not needed
        self.exchange.on_end()

    def fail(self, error: LLMPoolError) -> None:
        """Fail the exchange and release the stream. Send no reset: the stream or its connection has ended."""
        self.exchange.on_error(error)
        self.connection.release(self)

    def resume_upload(self) -> None:
        """Put this stream in the upload queue, if it has data to send and is not queued."""
        if self._outgoing and not self._upload_queued:
            self._upload_queued = True
            self.connection.queue_upload(self)

    def send_frame(self) -> bool:
        """Send one DATA frame if the stream's window is open. Return whether to queue the stream again.

        Returns False if the window is closed, or if no data is left.
        """
        connection, wire = self.connection, self.connection.wire
        window = 0
        if connection.is_open(self):
            window = min(self.send_window, wire.send_window, wire.max_frame_size)
        self._upload_queued = window > 0 and self._send_data(window)
        return self._upload_queued

    def _send_data(self, window: int) -> bool:
        """Send at most ``window`` bytes. Return whether there is more to send."""
        had_room = self.has_room
        piece = self._outgoing.popleft()
        if len(piece) > window:
            self._outgoing.appendleft(piece[window:])
            piece = piece[:window]
        self._queued -= len(piece)
        self._sent += len(piece)
        self._end_sent = self._body_ended and not self._outgoing
        self.connection.wire.send_data(self, piece, ended=self._end_sent)
        self.connection.flush()
        if not self._queued or (not had_room and self.has_room):
            self.exchange.on_room()
        return bool(self._outgoing)

    # Inside

    def _queue_data(self, data: bytes) -> None:
        self._outgoing.append(memoryview(data))
        self._queued += len(data)
        self.resume_upload()

    def _update_window(self) -> None:
        if self._unacknowledged and self.connection.is_open(self):
            self.connection.wire.enlarge_window(self.number, self._unacknowledged)
            self._unacknowledged = 0
            self.connection.flush()

    def _reject_length(self) -> None:
        allowed = self._content_length
        self._reject_response(f"a body of {self._received} bytes, where {allowed} were announced or allowed")

    def _reject_response(self, cause: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        """Reset the stream and fail the exchange for a malformed response (RFC 9113, section 8.1.1)."""
        self.connection.reset(self, code)
        self.exchange.on_error(ProtocolError(f"{self.exchange.request.origin} sent no valid HTTP/2: {cause}"))

    def _timed_out(self) -> None:
        exchange, now = self.exchange, self.connection.host_loop.loop.time()
        writing, is_past = self._queued > 0, is_past_total(exchange, now)
        if not exchange.is_awaited and not is_past:
            self.watchdog.watch(exchange.total_at)
            return
        if writing and self._sent > self._sent_at_watch and not is_past:
            self.watch(exchange)
            return
        received_at = self.connection.received_part_at(self)
        if not writing and received_at > self._watched_since:
            deadline = deadline_of(exchange, received_at, writing=False)
            if deadline is None or deadline > now:
                self._watched_since = received_at
                self.watchdog.watch(deadline)
                return
        self.connection.retire_if_silent(self._watched_since)
        self.connection.reset(self)
        exchange.on_error(timeout_error(exchange, now, writing=writing))
