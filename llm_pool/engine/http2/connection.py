"""A connection that speaks HTTP/2 (RFC 9113): concurrent exchanges, each on a stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, NoAvailableStreamIDError, TooManyStreamsError
from h2.exceptions import ProtocolError as H2ProtocolError

from llm_pool.exceptions import LLMPoolError, PoolClosed, ProtocolError, ReadFailed, in_parentheses

from ..closing import abort
from ..connection import Connection, Owner
from ..exchange import Exchange
from ..framing import Framing
from ..loops.host_loop import HostLoop
from ..request import Request
from ..tls_alerts import client_cert_error
from ..unread import read_unread
from .head import encode_fields
from .heartbeat import Heartbeat
from .stream import HTTP2Stream
from .uploads import Uploads
from .wire import CONNECTION_WINDOW, Wire

__all__ = ["HTTP2Connection"]

MAX_UNSENT = 1024 * 1024  # bytes that a server can leave unread while it makes the client send more


class HTTP2Connection(Connection):
    """Speaks HTTP/2 on a transport. All methods run on the host loop.

    ``host_loop``    the event loop that it belongs to
    ``owner``        receives the facts about it
    ``max_streams``  the maximum of concurrent calls, even if the server allows more
    ``wire``         the state of the protocol
    """

    announced = False

    def __init__(self, host_loop: HostLoop, owner: Owner, max_streams: int) -> None:
        super().__init__(host_loop, owner)
        self.capacity = self._max_streams = max_streams
        self.wire = Wire()
        self._streams: dict[int, HTTP2Stream] = {}  # the open streams, by number
        self._uploads = Uploads(self.wire)
        self._heartbeat = Heartbeat(host_loop.loop, lambda: self._streams, self._ping, self._on_dead)
        self._unacknowledged = 0  # received bytes that were not added to the connection's window again yet
        self._second_ends_at = 0.0  # when the wire's ``idle_frames`` are counted anew, on the loop's clock
        self._flush_scheduled = False
        self._writing_paused = False
        self._retire_reason: str | None = None  # set when it accepts no new calls any more
        self._ended = False  # closed, aborted or lost: nothing more is sent or handled
        self._goaway_reason = ""  # the error code of the server's GOAWAY, for error texts

    # For the pool

    def start(self, request: Request) -> Exchange:
        """See ``Connection.start``."""
        stream = HTTP2Stream(self)
        exchange = stream.exchange = Exchange(self.host_loop, stream, request)
        if request.body is None:
            stream.framing = Framing(request.head)
        assert self.transport is not None
        if self.transport.is_closing() and not self._ended:
            exchange.unsent = True
            stream.number = min((0, *self._streams)) - 1
            self._streams[stream.number] = stream  # ``connection_lost`` is about to be called, with the cause
            return exchange
        if self._ended or self._retire_reason or not self._open_stream(stream, request):
            return self._refuse_call(exchange)
        self._streams[stream.number] = stream
        self._heartbeat.on_request()
        if request.body is not None:
            stream.send_complete_body(request.body)
        self.flush()
        return exchange

    def has_unread(self) -> bool:
        """See ``Connection.has_unread``. False while calls are open, since their input is expected."""
        return not self._streams and super().has_unread()

    async def is_still_open(self) -> bool:
        """See ``Connection.is_still_open``. Returns True if it is retired: ``start`` refuses the call."""
        await read_unread(self.has_unread)
        return not self._ended

    def close(self) -> None:
        """See ``Connection.close``."""
        self._fail_all(PoolClosed("the pool was closed during the call"))
        if self.transport is None or self._ended:
            return
        has_unsent = self.transport.get_write_buffer_size() > 0
        self.wire.close_connection()
        self._write()
        self._end()
        if has_unsent:
            abort(self.transport)  # ``transport.close`` would wait until the server has read the data
        else:
            self.transport.close()

    def abort(self) -> None:
        """See ``Connection.abort``."""
        self._end()
        if self.transport is not None and not self.closed:
            abort(self.transport)

    def __repr__(self) -> str:
        state = "closed" if self._ended else f"{len(self._streams)} streams"
        return f"<HTTP2Connection {state}>"

    # For the streams

    def is_open(self, stream: HTTP2Stream) -> bool:
        """Return whether the stream is open: it was opened, and neither it nor the connection has ended."""
        return stream.number > 0 and stream.number in self._streams and not self._ended

    def flush(self) -> None:
        """Schedule one write of all frames that are made in this step of the event loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.host_loop.loop.call_soon(self._write)

    def queue_upload(self, stream: HTTP2Stream) -> None:
        """Queue a stream with data to send, and send what can be sent now."""
        self._uploads.add(stream)
        self._send_uploads()

    def release(self, stream: HTTP2Stream) -> None:
        """Remove a stream that has ended, and release its place in the ledger. The connection stays open."""
        if self._streams.pop(stream.number, None) is None:
            return
        stream.watchdog.stop()
        self.wire.forget(stream.number)
        if stream.exchange.refused:
            # Later: the refused call is sent again, and must first be back in the queue.
            self.host_loop.loop.call_soon(self._release_place)
        else:
            self._release_place()

    def reset(self, stream: HTTP2Stream, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Release a stream. If it is still open, send RST_STREAM first (RFC 9113, section 6.4)."""
        if self.is_open(stream):
            self.wire.reset(stream.number, code)
            self.flush()
        self.release(stream)

    def received_part_at(self, stream: HTTP2Stream) -> float:
        """Return when the last bytes of a frame of ``stream`` that is not complete were received.

        Returns 0.0 if there is no such frame. The result is in seconds of the loop's clock.
        """
        return self._heartbeat.received_at if self.wire.incomplete_stream == stream.number else 0.0

    def retire_if_silent(self, since: float) -> None:
        """Retire the connection if nothing was received after ``since``, in seconds of the loop's clock.

        Such a connection can be dead.
        """
        if self._heartbeat.received_at <= since:
            self._retire("unclean")

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._heartbeat.on_received()
        if self._heartbeat.received_at >= self._second_ends_at:
            self._second_ends_at = self._heartbeat.received_at + 1.0
            self.wire.idle_frames = 0
        try:
            self._handle(data)
            self._check_unsent()
        except H2ProtocolError as error:
            self.wire.close_connection(error.error_code)
            self._write()
            kind = type(error).__name__
            self._fail_and_abort(ProtocolError(f"the server broke the rules of HTTP/2: {kind}: {error}"))
            return
        if not self._flush_scheduled:
            self._write()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        super().connection_lost(error)  # first, so that the pool puts no other call on this connection
        why = in_parentheses(error) or self._goaway_reason
        for stream in list(self._streams.values()):
            origin = stream.exchange.request.origin
            lost = f"{origin} closed the connection before the response was complete{why}"
            if stream.exchange.status:
                stream.fail(ProtocolError(lost))
            else:
                stream.fail(client_cert_error(error, origin) or ReadFailed(lost))

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._send_uploads()
        self.flush()

    # Events

    def _handle(self, data: bytes) -> None:
        events = self.wire.receive(data)
        while not self._ended and (event := next(events, None)):  # an event can end the connection
            handler = self._HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    def _check_unsent(self) -> None:
        """Raise DenialOfServiceError if too much is unsent: the server sends frames and reads no answers."""
        if self._writing_paused:
            assert self.transport is not None
            if self.transport.get_write_buffer_size() > MAX_UNSENT:
                raise DenialOfServiceError(f"the server sends frames, and leaves {MAX_UNSENT} bytes unread")

    def _on_head(self, event: ResponseReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            self.wire.idle_frames = 0
            stream.on_head(event.headers)

    def _on_interim_head(self, event: InformationalResponseReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_interim_head(event.headers)

    def _on_trailers(self, event: TrailersReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_trailers(event.headers)

    def _on_data(self, event: DataReceived) -> None:
        self._unacknowledged += event.flow_controlled_length
        if self._unacknowledged >= CONNECTION_WINDOW // 4:
            self.wire.increment_flow_control_window(self._unacknowledged)
            self._unacknowledged = 0
        if stream := self._streams.get(event.stream_id):
            if event.data:
                self.wire.idle_frames = 0
            stream.on_data(event.data, event.flow_controlled_length, ended=event.stream_ended is not None)

    def _on_end(self, event: StreamEnded) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_end()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        origin, code = stream.exchange.request.origin, _error_name(event.error_code)
        stream.exchange.refused = event.error_code == ErrorCodes.REFUSED_STREAM
        if event.remote_reset:
            stream.fail(ProtocolError(f"{origin} reset the call: {code}"))
        else:
            stream.fail(ProtocolError(f"{origin} broke the rules of HTTP/2 in its response: {code}"))

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        allowed = min(self.wire.remote_settings.max_concurrent_streams, self._max_streams)
        if allowed != self.capacity or not self.announced:
            self.announced = True
            self.capacity = allowed
            if self.entry is not None:
                self.owner.resized(self.entry, allowed)
        for stream in list(self._streams.values()):
            stream.resume_upload()  # the settings can enlarge the streams' windows

    def _on_window(self, event: WindowUpdated) -> None:
        if not event.stream_id:  # the connection's window
            self._send_uploads()
        elif stream := self._streams.get(event.stream_id):
            stream.resume_upload()

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        """Retire the connection. Fail the calls on streams above ``last_stream_id``.

        The server has not processed those calls (RFC 9113, section 6.8), so they can be sent again.
        """
        last = event.last_stream_id or 0
        if event.error_code:
            self._goaway_reason = f" ({_error_name(event.error_code)})"
        self._retire("goaway")
        for number, stream in list(self._streams.items()):
            if number > last:
                stream.exchange.refused = True
                origin = stream.exchange.request.origin
                stream.fail(ReadFailed(f"{origin} is closing the connection{self._goaway_reason}"))

    _HANDLERS: ClassVar[dict[type, Callable[[HTTP2Connection, Any], None]]] = {
        InformationalResponseReceived: _on_interim_head,
        ResponseReceived: _on_head,
        TrailersReceived: _on_trailers,
        DataReceived: _on_data,
        StreamEnded: _on_end,
        StreamReset: _on_reset,
        RemoteSettingsChanged: _on_settings,
        WindowUpdated: _on_window,
        ConnectionTerminated: _on_goaway,
    }

    # Sending

    def _open_stream(self, stream: HTTP2Stream, request: Request) -> bool:
        """Send the head of the request on a new stream. Return False if the connection can open none."""
        try:
            stream.number = self.wire.get_next_available_stream_id()
            fields = encode_fields(request)
            self.wire.send_headers(stream.number, fields, end_stream=request.body == b"")
        except TooManyStreamsError:
            return False  # the server has lowered its limit since the ledger chose this connection
        except NoAvailableStreamIDError:  # all 2**30 numbers were used (RFC 9113, section 5.1.1)
            self._retire("lifetime")
            return False
        return True

    def _write(self) -> None:
        self._flush_scheduled = False
        if self.transport is None or self.transport.is_closing():
            return
        if data := self.wire.data_to_send():
            self.transport.write(data)
            self._send_uploads()
            if self.wire.unsent:
                self.flush()

    def _send_uploads(self) -> None:
        if not self._writing_paused:  # otherwise the transport accepts no more data
            self._uploads.send()

    def _ping(self) -> None:
        self.wire.ping(b"llm_pool")
        self._write()

    # Endings

    def _refuse_call(self, exchange: Exchange) -> Exchange:
        """Fail a call before it is sent, and release its place in the ledger. Return its exchange.

        Called if the connection has ended, was retired, or can open no stream, after the ledger has chosen it
        for the call.
        """
        exchange.unsent = exchange.refused = True
        exchange.on_error(ReadFailed(f"the connection to {exchange.request.origin} takes no more calls"))
        if self._retire_reason:
            self._retire(self._retire_reason)
        self.host_loop.loop.call_soon(self._release_place)
        return exchange

    def _release_place(self) -> None:
        if self.entry is not None:
            self.owner.released(self.entry, reusable=True, hint=None)

    def _retire(self, reason: str) -> None:
        """Accept no new calls. Calls in progress continue."""
        self._retire_reason = reason
        if self.entry is not None:
            self.owner.retired(self.entry, reason)

    def _end(self) -> None:
        self._ended = True
        self._heartbeat.stop()

    def _fail_and_abort(self, error: LLMPoolError) -> None:
        self.loss = error
        self._retire("unclean")
        self._fail_all(error)
        self.abort()

    def _fail_all(self, error: LLMPoolError) -> None:
        for stream in list(self._streams.values()):
            stream.fail(type(error)(str(error)))  # a new error for each call, with its own traceback

    def _on_dead(self) -> None:
        self._fail_and_abort(ReadFailed("the connection is dead: no answer to a PING"))


def _error_name(code: Any) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
