"""One exchange on an HTTP/2 connection: what it still has to send, and what its reader has still to take."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from h2.errors import ErrorCodes

from llm_pool.exceptions import LLMPoolError, ProtocolError, ReadTimeout, TotalTimeout, WriteTimeout

from ..request import Headers
from ..watchdog import Watchdog
from .head import promised_length, read_fields

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..loops.host_loop import HostLoop
    from .wire import Wire

__all__ = ["HTTP2Stream"]

SEND_HIGH_WATER = 256 * 1024  # bytes of an upload that wait for the server's window before the caller waits
GIVE_BACK = 128 * 1024  # bytes read before the server is told that it may send as many more


class StreamConnection(Protocol):
    """The connection, as far as its streams use it."""

    host_loop: HostLoop
    wire: Wire

    def carries(self, stream: HTTP2Stream) -> bool: ...
    def flush(self) -> None: ...
    def upload(self, stream: HTTP2Stream) -> None: ...
    def release(self, stream: HTTP2Stream) -> None: ...
    def reset(self, stream: HTTP2Stream, code: ErrorCodes = ...) -> None: ...
    def distrust_if_silent(self, silent_since: float) -> None: ...


class HTTP2Stream:
    """The carrier of an exchange. Its end is the connection's ``over`` or ``reset``."""

    exchange: Exchange

    def __init__(self, connection: StreamConnection) -> None:
        self.connection = connection
        self.number = 0
        self.watchdog = Watchdog(connection.host_loop.loop, self._timed_out)
        self._watched_since = 0.0
        self._outgoing: deque[memoryview] = deque()
        self._queued = 0  # bytes in ``_outgoing``
        self._sent = 0  # bytes, to tell progress from a standstill
        self._sent_then = 0
        self._in_line = False  # to send a piece
        self._body_ended = False
        self._end_sent = False
        self._promised: int | None = None  # bytes of body that the head promises
        self._received = 0
        self._unread = 0  # bytes received that the stream's window has not been given back for
        self._paused = False

    # For the exchange

    @property
    def has_room(self) -> bool:
        return self._queued < SEND_HIGH_WATER

    def watch(self, exchange: Exchange, *, writing: bool) -> None:
        self._sent_then = self._sent
        self._watched_since = self.connection.host_loop.loop.time()
        self.watchdog.watch(exchange.deadline(self._watched_since, writing=writing or self._queued > 0))

    def unwatch(self, exchange: Exchange) -> None:
        if self.connection.carries(self):
            self.watchdog.watch(exchange.total_at)

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        if data:
            self._queue(data)

    def end_body(self, exchange: Exchange) -> None:
        self._body_ended = True
        if not self._outgoing and not self._end_sent and self.connection.carries(self):
            self._end_sent = True
            self.connection.wire.end_stream(self.number)
            self.connection.flush()

    def pause(self, exchange: Exchange) -> None:
        self._paused = True

    def resume(self, exchange: Exchange) -> None:
        self._paused = False
        self._give_back()

    def cancel(self, exchange: Exchange) -> None:
        self.connection.reset(self)

    # For the connection

    def send_whole(self, body: bytes) -> None:
        """The body of a request that is all there."""
        self._body_ended = True
        if body:
            self._queue(body)
        else:
            self._end_sent = True  # the head says so

    def on_head(self, fields: Headers) -> None:
        exchange = self.exchange
        exchange.answered = True
        try:
            status, headers = read_fields(fields)
        except ProtocolError as error:
            self._refuse(str(error))
            return
        self._promised = promised_length(exchange.request, status, headers)
        exchange.on_head(status, b"", b"HTTP/2", headers)

    def on_data(self, data: bytes, size: int, *, ended: bool) -> None:
        """``size`` counts the padding too."""
        self._received += len(data)
        self._unread += size
        if data:
            self.exchange.on_data(data)
        if not ended and not self._paused and self._unread >= GIVE_BACK:
            self._give_back()

    def on_end(self) -> None:
        if self._promised is not None and self._received != self._promised:
            self._refuse(f"a body of {self._received} bytes, where {self._promised} were promised")
            return
        if self._end_sent:
            self.connection.release(self)
        else:
            self.connection.reset(self)  # an early answer: the rest of the upload is not wanted
        self.exchange.on_end()

    def fail(self, error: LLMPoolError) -> None:
        """The stream has ended badly, and the server knows."""
        self.exchange.on_error(error)
        self.connection.release(self)

    def pump(self) -> None:
        """Get in line where there is something to send."""
        if self._outgoing and not self._in_line:
            self._in_line = True
            self.connection.upload(self)

    def send_piece(self) -> bool:
        """Send what goes into one frame. Whether the stream is to stay in line: it has more, and may."""
        connection, wire = self.connection, self.connection.wire
        window = 0
        if connection.carries(self):
            window = min(wire.local_flow_control_window(self.number), wire.max_outbound_frame_size)
        self._in_line = window > 0 and self._send(window)
        return self._in_line

    def _send(self, window: int) -> bool:
        had_room = self.has_room
        piece = self._outgoing.popleft()
        if len(piece) > window:
            self._outgoing.appendleft(piece[window:])
            piece = piece[:window]
        self._queued -= len(piece)
        self._sent += len(piece)
        self._end_sent = self._body_ended and not self._outgoing
        self.connection.wire.send_data(self.number, piece, end_stream=self._end_sent)
        self.connection.flush()
        if not self._queued or (not had_room and self.has_room):
            self.exchange.on_room()
        return bool(self._outgoing)

    # Inside

    def _queue(self, data: bytes) -> None:
        self._outgoing.append(memoryview(data))
        self._queued += len(data)
        self.pump()

    def _give_back(self) -> None:
        if self._unread and self.connection.carries(self):
            self.connection.wire.increment_flow_control_window(self._unread, self.number)
            self._unread = 0
            self.connection.flush()

    def _refuse(self, why: str) -> None:
        """A response that cannot be made sense of (RFC 9113, section 8.1.1)."""
        self.connection.reset(self, ErrorCodes.PROTOCOL_ERROR)
        self.exchange.on_error(ProtocolError(f"{self.exchange.request.origin} sent no valid HTTP/2: {why}"))

    def _timed_out(self) -> None:
        exchange = self.exchange
        timeouts, origin = exchange.request.timeouts, exchange.request.origin
        error: LLMPoolError
        if exchange.is_past_total(self.connection.host_loop.loop.time()):
            error = TotalTimeout(f"the call to {origin} took longer than its {timeouts.total} s")
        elif not self._queued:
            error = ReadTimeout(f"{origin} sent nothing for {timeouts.read} s")
        elif self._sent > self._sent_then:
            self.watch(exchange, writing=True)
            return
        else:
            error = WriteTimeout(f"{origin} took nothing of the request for {timeouts.write} s")
        self.connection.distrust_if_silent(self._watched_since)
        self.connection.reset(self)
        exchange.on_error(error)
