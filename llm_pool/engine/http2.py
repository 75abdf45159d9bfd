"""A connection that speaks HTTP/2 (RFC 9113): many exchanges at a time, each a stream of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from .connection import Connection, Owner
from .errors import LLMPoolError, PoolClosed, ProtocolError, ReadFailed
from .exchange import Exchange
from .home import Home
from .http2_stream import HTTP2Stream
from .request import Marks, Request
from .watchdog import Watchdog

__all__ = ["HTTP2Connection"]

STREAM_WINDOW = 512 * 1024  # bytes the server may send ahead of a slow reader
CONNECTION_WINDOW = 16 * 1024 * 1024  # of all streams together: a slow reader must not stop the others
MAX_HEADER_LIST = 64 * 1024
PING_AFTER = 15.0  # seconds of silence, while calls wait, before the server is asked for a sign of life
PING_SECONDS = 5.0  # and how long it has to give one

CONFIG = h2.config.H2Configuration(
    client_side=True,
    header_encoding=None,
    validate_outbound_headers=False,  # ``head.check`` has seen to it
    normalize_outbound_headers=False,
)
NOT_DONE = (h2.errors.ErrorCodes.REFUSED_STREAM,)


class HTTP2Connection(Connection):
    """Speaks HTTP/2 on a transport. ``most_streams`` bounds the streams, whatever more the server allows."""

    def __init__(self, home: Home, owner: Owner, most_streams: int) -> None:
        super().__init__(home, owner)
        self.capacity = self._most_streams = most_streams
        self.writing_paused = False
        self.h2 = _Protocol(CONFIG)
        self._streams: dict[int, HTTP2Stream] = {}
        self._heartbeat = Watchdog(home.loop, self._no_sign_of_life)
        self._heard_at = 0.0
        self._pinged = False
        self._unread = 0  # bytes received that the connection's window has not been given back for
        self._flushing = False
        self._goes_away = False

    # For the pool

    def start(self, request: Request, marks: Marks) -> Exchange:
        """See ``Connection.start``."""
        stream = HTTP2Stream(self)
        exchange = stream.exchange = Exchange(self.home, stream, request, marks)
        if self.closed or self._goes_away:
            return self._refused(exchange)
        try:
            stream.number = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream.number, _headers(request), end_stream=request.body == b"")
        except (h2.exceptions.TooManyStreamsError, h2.exceptions.NoAvailableStreamIDError):
            return self._refused(exchange)
        if not self._streams:
            self._heard_at = self.home.loop.time()
            self._heartbeat.watch(self._heard_at + PING_AFTER)
        self._streams[stream.number] = stream
        if request.body:
            stream.send_body(exchange, request.body)
        if request.body is not None:
            stream.end_body(exchange)
        self.flush()
        return exchange

    def close(self) -> None:
        """See ``Connection.close``."""
        self._fail_all(PoolClosed("the pool was closed during the call"))
        self._heartbeat.stop()
        if self.transport is not None and not self.closed:
            self.h2.close_connection()
            self._write()
            self.transport.close()

    def abort(self) -> None:
        """See ``Connection.abort``."""
        self._heartbeat.stop()
        if self.transport is not None:
            self.transport.abort()

    # For the streams

    def carries(self, stream: HTTP2Stream) -> bool:
        """Whether the stream has not ended."""
        return not self.closed and stream.number in self._streams

    def flush(self) -> None:
        """Write what has come up in this turn of the loop, all at once."""
        if not self._flushing:
            self._flushing = True
            self.home.loop.call_soon(self._write)

    def over(self, stream: HTTP2Stream) -> None:
        """A stream has ended, well or badly; the connection lives on."""
        if self._streams.pop(stream.number, None) is None:
            return
        stream.watchdog.stop()
        if not self._streams:
            self._heartbeat.deadline = None
        if self.entry is not None:
            self.owner.released(self.entry, reusable=True, hint=None)

    def reset(self, stream: HTTP2Stream, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.CANCEL) -> None:
        """End a stream from our side, and say so to the server."""
        if self.carries(stream):
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                self.h2.reset_stream(stream.number, code)
            self.flush()
        self.over(stream)

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                codes.ENABLE_PUSH: 0,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            },
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.home.loop.time()
        self._pinged = False
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._write()
            self._fail_all(ProtocolError(f"the server broke the rules of HTTP/2: {error}"))
            self.abort()
            return
        for event in events:
            handler = self._HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
        if not self._flushing:
            self._write()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._heartbeat.stop()
        why = f" ({type(error).__name__}: {error})" if error is not None else ""
        for stream in list(self._streams.values()):
            origin = stream.exchange.request.origin
            kind = ProtocolError if stream.exchange.status else ReadFailed
            stream.fail(kind(f"{origin} closed the connection before the response was complete{why}"))
        super().connection_lost(error)

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._pump()

    # Frames

    def _responded(self, event: h2.events.ResponseReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_head(event.headers)

    def _received(self, event: h2.events.DataReceived) -> None:
        self._unread += event.flow_controlled_length
        if self._unread >= CONNECTION_WINDOW // 2:
            self.h2.increment_flow_control_window(self._unread)
            self._unread = 0
        if stream := self._streams.get(event.stream_id):
            stream.on_data(event.data, event.flow_controlled_length, ended=event.stream_ended is not None)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_end()

    def _was_reset(self, event: h2.events.StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        origin = stream.exchange.request.origin
        stream.exchange.refused = event.error_code in NOT_DONE
        stream.fail(ProtocolError(f"{origin} reset the call: {_name(event.error_code)}"))

    def _settled(self, event: h2.events.RemoteSettingsChanged) -> None:
        allowed = event.changed_settings.get(h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS)
        if allowed is not None:
            self.capacity = min(allowed.new_value, self._most_streams)
            if self.entry is not None:
                self.owner.resized(self.entry, self.capacity)
        self._pump()

    def _window_opened(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id == 0:
            self._pump()
        elif stream := self._streams.get(event.stream_id):
            stream.pump()

    def _going_away(self, event: h2.events.ConnectionTerminated) -> None:
        """RFC 9113, section 6.8: streams above the last one named were not, and will not be, worked on."""
        self._goes_away = True
        last = event.last_stream_id or 0
        if self.entry is not None:
            self.owner.retired(self.entry, "goaway")
        for number, stream in list(self._streams.items()):
            if number > last:
                stream.exchange.refused = True
                stream.fail(ReadFailed(f"{stream.exchange.request.origin} is closing the connection"))

    _HANDLERS: ClassVar[dict[type, Callable[[HTTP2Connection, Any], None]]] = {
        h2.events.ResponseReceived: _responded,
        h2.events.DataReceived: _received,
        h2.events.StreamEnded: _ended,
        h2.events.StreamReset: _was_reset,
        h2.events.RemoteSettingsChanged: _settled,
        h2.events.WindowUpdated: _window_opened,
        h2.events.ConnectionTerminated: _going_away,
    }

    # Inside

    def _write(self) -> None:
        self._flushing = False
        if self.transport is not None and (data := self.h2.data_to_send()):
            self.transport.write(data)

    def _pump(self) -> None:
        for stream in list(self._streams.values()):
            stream.pump()

    def _refused(self, exchange: Exchange) -> Exchange:
        """What the ledger could not know when it chose this connection."""
        exchange.unsent = exchange.refused = True
        exchange.on_error(ReadFailed(f"the connection to {exchange.request.origin} takes no more calls"))
        if self.entry is not None:
            self.owner.released(self.entry, reusable=True, hint=None)
        return exchange

    def _fail_all(self, error: LLMPoolError) -> None:
        for stream in list(self._streams.values()):
            stream.fail(type(error)(str(error)))

    def _no_sign_of_life(self) -> None:
        now = self.home.loop.time()
        if not self._streams or self.closed:
            return
        if self._pinged:
            self._fail_all(ReadFailed(f"the connection is dead: no answer to a PING for {PING_SECONDS:g} s"))
            self.abort()
        elif now < self._heard_at + PING_AFTER:
            self._heartbeat.watch(self._heard_at + PING_AFTER)
        else:
            self._pinged = True
            self.h2.ping(b"llm_pool")
            self._write()
            self._heartbeat.watch(now + PING_SECONDS)


class _Protocol(h2.connection.H2Connection):
    """h2 takes a GOAWAY for the end; by RFC 9113, section 6.8, the streams below its mark go on."""

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    """RFC 9113, section 8.3.1, and without what section 8.2.2 forbids."""
    authority = b""
    regular = []
    for name, value in request.headers:
        lowered = name.lower()
        if lowered == b"host":
            authority = value
        elif lowered not in FORBIDDEN:
            regular.append((lowered, value))
    return [
        (b":method", request.method),
        (b":scheme", request.origin.scheme.encode()),
        (b":authority", authority),
        (b":path", request.target),
        *regular,
    ]


FORBIDDEN = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te"}
)


def _name(code: Any) -> str:
    return getattr(code, "name", None) or f"error {code}"
