"""A connection that speaks HTTP/2 (RFC 9113): many exchanges at a time, each a stream of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import NoAvailableStreamIDError, TooManyStreamsError
from h2.exceptions import ProtocolError as RulesBroken

from llm_pool.exceptions import LLMPoolError, PoolClosed, ProtocolError, ReadFailed

from ..closing import abort
from ..connection import Connection, Owner
from ..exchange import Exchange
from ..loops.host_loop import HostLoop
from ..request import Request
from .head import encode_fields
from .heartbeat import Heartbeat
from .stream import HTTP2Stream
from .wire import CONNECTION_WINDOW, Wire

__all__ = ["HTTP2Connection"]

SEND_AT_ONCE = 128 * 1024  # bytes of uploads that may stand before a call that begins meanwhile


class HTTP2Connection(Connection):
    """Speaks HTTP/2 on a transport. ``most_streams`` bounds the streams, whatever more the server allows."""

    announced = False

    def __init__(self, host_loop: HostLoop, owner: Owner, most_streams: int) -> None:
        super().__init__(host_loop, owner)
        self.capacity = self._most_streams = most_streams
        self.wire = Wire()
        self._streams: dict[int, HTTP2Stream] = {}
        self._uploads: deque[HTTP2Stream] = deque()  # those that have something to send, each in its turn
        self._heartbeat = Heartbeat(host_loop.loop, lambda: self._streams, self._ping, self._ping_unanswered)
        self._consumed = 0  # bytes received that the connection's window has not been given back for
        self._flushing = False
        self._writing_paused = False
        self._retired: str | None = None  # why it takes no more calls
        self._ended = False  # nothing is sent or heard any more
        self._goaway_reason = ""  # what the server said at its end

    # For the pool

    def start(self, request: Request) -> Exchange:
        """See ``Connection.start``."""
        stream = HTTP2Stream(self)
        exchange = stream.exchange = Exchange(self.host_loop, stream, request)
        if self._ended or self._retired or not self._open(stream, request):
            return self._refused(exchange)
        self._streams[stream.number] = stream
        self._heartbeat.ask()
        if request.body is not None:
            stream.send_whole(request.body)
        self.flush()
        return exchange

    def close(self) -> None:
        """See ``Connection.close``."""
        self._fail_all(PoolClosed("the pool was closed during the call"))
        if self.transport is None or self._ended:
            return
        stuck = self.transport.get_write_buffer_size() > 0
        self.wire.close_connection()
        self._write()
        self._end()
        if stuck:
            abort(self.transport)  # a close would wait until the server has taken the rest
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

    def carries(self, stream: HTTP2Stream) -> bool:
        """Whether the stream has not ended."""
        return stream.number in self._streams and not self._ended

    def flush(self) -> None:
        """Write what has come up in this turn of the loop, all at once."""
        if not self._flushing:
            self._flushing = True
            self.host_loop.loop.call_soon(self._write)

    def upload(self, stream: HTTP2Stream) -> None:
        """A stream has something to send: it joins the line."""
        self._uploads.append(stream)
        self._fill()

    def release(self, stream: HTTP2Stream) -> None:
        """A stream has ended, well or badly; the connection lives on."""
        if self._streams.pop(stream.number, None) is None:
            return
        stream.watchdog.stop()
        self.wire.forget(stream.number)
        if stream.exchange.refused:
            self.host_loop.loop.call_soon(
                self._release
            )  # its caller, who comes again, is the first in the queue
        else:
            self._release()

    def reset(self, stream: HTTP2Stream, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End a stream from our side, and say so to the server."""
        if self.carries(stream):
            self.wire.reset(stream.number, code)
            self.flush()
        self.release(stream)

    def distrust_if_silent(self, silent_since: float) -> None:
        """A stream has timed out. Where the server has said nothing at all meanwhile, trust it no further."""
        if self._heartbeat.heard_at <= silent_since:
            self._retire("unclean")

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._heartbeat.hear()
        try:
            self._take(data)
        except RulesBroken as error:
            self.wire.close_connection(error.error_code)
            self._write()
            kind = type(error).__name__
            self._break(ProtocolError(f"the server broke the rules of HTTP/2: {kind}: {error}"))
            return
        if not self._flushing:
            self._write()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        super().connection_lost(error)  # first, so that no stream that ends now is offered to others
        why = f" ({type(error).__name__}: {error})" if error is not None else self._goaway_reason
        for stream in list(self._streams.values()):
            origin = stream.exchange.request.origin
            kind = ProtocolError if stream.exchange.status else ReadFailed
            stream.fail(kind(f"{origin} closed the connection before the response was complete{why}"))

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._fill()
        self.flush()

    # Events

    def _take(self, data: bytes) -> None:
        events = self.wire.receive(data)
        while not self._ended and (event := next(events, None)):  # an event may bring the end
            handler = self._HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    def _on_head(self, event: ResponseReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_head(event.headers)

    def _on_data(self, event: DataReceived) -> None:
        self._consumed += event.flow_controlled_length
        if self._consumed >= CONNECTION_WINDOW // 4:
            self.wire.increment_flow_control_window(self._consumed)
            self._consumed = 0
        if stream := self._streams.get(event.stream_id):
            stream.on_data(event.data, event.flow_controlled_length, ended=event.stream_ended is not None)

    def _on_end(self, event: StreamEnded) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.on_end()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        origin, code = stream.exchange.request.origin, _name(event.error_code)
        stream.exchange.refused = event.error_code == ErrorCodes.REFUSED_STREAM
        if event.remote_reset:
            stream.fail(ProtocolError(f"{origin} reset the call: {code}"))
        else:
            stream.fail(ProtocolError(f"{origin} broke the rules of HTTP/2 in its response: {code}"))

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        allowed = min(self.wire.remote_settings.max_concurrent_streams, self._most_streams)
        if allowed != self.capacity or not self.announced:
            self.announced = True
            self.capacity = allowed
            if self.entry is not None:
                self.owner.resized(self.entry, allowed)
        self._pump()

    def _on_window(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._fill()
        elif stream := self._streams.get(event.stream_id):
            stream.pump()

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        """Section 6.8: streams above the last one named were not, and will not be, worked on."""
        last = event.last_stream_id or 0
        if event.error_code:
            self._goaway_reason = f" ({_name(event.error_code)})"
        self._retire("goaway")
        for number, stream in list(self._streams.items()):
            if number > last:
                stream.exchange.refused = True
                origin = stream.exchange.request.origin
                stream.fail(ReadFailed(f"{origin} is closing the connection{self._goaway_reason}"))

    _HANDLERS: ClassVar[dict[type, Callable[[HTTP2Connection, Any], None]]] = {
        ResponseReceived: _on_head,
        DataReceived: _on_data,
        StreamEnded: _on_end,
        StreamReset: _on_reset,
        RemoteSettingsChanged: _on_settings,
        WindowUpdated: _on_window,
        ConnectionTerminated: _on_goaway,
    }

    # Sending

    def _open(self, stream: HTTP2Stream, request: Request) -> bool:
        try:
            stream.number = self.wire.get_next_available_stream_id()
            fields = encode_fields(request)
            self.wire.send_headers(stream.number, fields, end_stream=request.body == b"")
        except TooManyStreamsError:
            return False  # the server has lowered its limit since the ledger chose this connection
        except NoAvailableStreamIDError:
            self._retire("lifetime")
            return False
        return True

    def _write(self) -> None:
        self._flushing = False
        if self.transport is None or self.transport.is_closing():
            return
        if data := self.wire.data_to_send():
            self.transport.write(data)
            self._fill()
            if self.wire.unsent:
                self.flush()

    def _fill(self) -> None:
        """Uploads take turns, a frame each: a small one does not wait for a large one."""
        uploads, wire = self._uploads, self.wire
        while uploads and not self._writing_paused and wire.unsent < SEND_AT_ONCE:
            if wire.outbound_flow_control_window <= 0:
                break
            stream = uploads.popleft()
            if stream.send_piece():
                uploads.append(stream)

    def _pump(self) -> None:
        for stream in list(self._streams.values()):
            stream.pump()

    def _ping(self) -> None:
        self.wire.ping(b"llm_pool")
        self._write()

    # Endings

    def _refused(self, exchange: Exchange) -> Exchange:
        """What the ledger did not know when it chose this connection."""
        exchange.unsent = exchange.refused = True
        exchange.on_error(ReadFailed(f"the connection to {exchange.request.origin} takes no more calls"))
        if self._retired:
            self._retire(self._retired)
        self.host_loop.loop.call_soon(self._release)
        return exchange

    def _release(self) -> None:
        if self.entry is not None:
            self.owner.released(self.entry, reusable=True, hint=None)

    def _retire(self, reason: str) -> None:
        """Take no more calls; those that are open go on."""
        self._retired = reason
        if self.entry is not None:
            self.owner.retired(self.entry, reason)

    def _end(self) -> None:
        self._ended = True
        self._heartbeat.stop()

    def _break(self, error: LLMPoolError) -> None:
        """The connection is of no use any more."""
        self._retire("unclean")
        self._fail_all(error)
        self.abort()

    def _fail_all(self, error: LLMPoolError) -> None:
        for stream in list(self._streams.values()):
            stream.fail(type(error)(str(error)))

    def _ping_unanswered(self) -> None:
        self._break(ReadFailed("the connection is dead: no answer to a PING"))


def _name(code: Any) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
