"""One exchange on an HTTP/2 connection: what it still has to send, and what its reader has still to take."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from h2.exceptions import StreamClosedError

from .errors import LLMPoolError, ReadTimeout, TotalTimeout, WriteTimeout
from .request import Headers
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .exchange import Exchange
    from .http2 import HTTP2Connection

__all__ = ["HTTP2Stream"]

SEND_HIGH_WATER = 256 * 1024  # bytes of an upload that wait for the server's window before the caller waits
GIVE_BACK = 128 * 1024  # bytes read before the server is told that it may send as many more


class HTTP2Stream:
    """The carrier of an exchange. Its end is the connection's ``over`` or ``reset``."""

    exchange: Exchange

    def __init__(self, connection: HTTP2Connection) -> None:
        self.connection = connection
        self.number = 0
        self.unread = 0
        self.watchdog = Watchdog(connection.home.loop, self._timed_out)
        self._outgoing: list[memoryview] = []
        self._queued = 0
        self._sent = 0  # bytes, to tell progress from a standstill
        self._sent_then = 0
        self._body_ended = False
        self._end_sent = False
        self._paused = False

    # For the exchange

    @property
    def has_room(self) -> bool:
        return self._queued < SEND_HIGH_WATER

    def watch(self, exchange: Exchange, *, writing: bool) -> None:
        self._sent_then = self._sent
        self.watchdog.watch(
            exchange.deadline(self.connection.home.loop.time(), writing=writing or self._queued > 0)
        )

    def unwatch(self, exchange: Exchange) -> None:
        self.watchdog.deadline = None

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        self._outgoing.append(memoryview(data))
        self._queued += len(data)
        self.pump()

    def end_body(self, exchange: Exchange) -> None:
        self._body_ended = True
        if exchange.request.body == b"":
            self._end_sent = True  # the head said so
        self.pump()

    def pause(self, exchange: Exchange) -> None:
        self._paused = True

    def resume(self, exchange: Exchange) -> None:
        self._paused = False
        self._give_back()

    def abandon(self, exchange: Exchange) -> None:
        self.connection.reset(self)

    # For the connection

    def on_head(self, headers: Headers) -> None:
        exchange = self.exchange
        exchange.answered = True
        status = next((int(value) for name, value in headers if name == b":status"), 0)
        exchange.on_head(status, b"", b"HTTP/2", [pair for pair in headers if pair[0][:1] != b":"])

    def on_data(self, data: bytes, size: int, *, ended: bool) -> None:
        self.unread += size
        self.exchange.on_data(data)
        if not ended and not self._paused and self.unread >= GIVE_BACK:
            self._give_back()

    def on_end(self) -> None:
        if self._end_sent:
            self.connection.over(self)
        else:
            self.connection.reset(self)  # an early answer: the rest of the upload is not wanted
        self.exchange.on_end()

    def fail(self, error: LLMPoolError) -> None:
        """The stream has ended badly, and the server knows."""
        self.connection.over(self)
        self.exchange.on_error(error)

    def pump(self) -> None:
        """Send as much of the body as the server's windows and the transport take."""
        connection, protocol = self.connection, self.connection.h2
        if self._end_sent or not connection.carries(self):
            return
        had_room = self.has_room
        with contextlib.suppress(StreamClosedError):  # reset by the server: the news stands behind
            while self._outgoing and not connection.writing_paused:
                window = min(
                    protocol.local_flow_control_window(self.number), protocol.max_outbound_frame_size
                )
                if window <= 0:
                    break
                self._send(window)
            if self._body_ended and not self._outgoing and not self._end_sent:
                protocol.end_stream(self.number)
                self._end_sent = True
        connection.flush()
        if not had_room and self.has_room:
            self.exchange.on_room()

    def _send(self, window: int) -> None:
        piece = self._outgoing[0][:window]
        rest = self._outgoing[0][window:]
        if rest:
            self._outgoing[0] = rest
        else:
            self._outgoing.pop(0)
        self._end_sent = self._body_ended and not self._outgoing
        self._queued -= len(piece)
        self._sent += len(piece)
        self.connection.h2.send_data(self.number, piece, end_stream=self._end_sent)

    def _give_back(self) -> None:
        if not self.unread or not self.connection.carries(self):
            return
        with contextlib.suppress(StreamClosedError):  # its end stands behind in the same bytes
            self.connection.h2.increment_flow_control_window(self.unread, self.number)
        self.unread = 0
        self.connection.flush()

    def _timed_out(self) -> None:
        exchange = self.exchange
        timeouts, origin = exchange.request.timeouts, exchange.request.origin
        error: LLMPoolError
        if exchange.is_past_total(self.connection.home.loop.time()):
            error = TotalTimeout(f"the call to {origin} took longer than its {timeouts.total} s")
        elif not self._queued:
            error = ReadTimeout(f"{origin} sent nothing for {timeouts.read} s")
        elif self._sent > self._sent_then:
            self.watch(exchange, writing=True)
            return
        else:
            error = WriteTimeout(f"{origin} took nothing of the request for {timeouts.write} s")
        self.connection.reset(self)
        exchange.on_error(error)
