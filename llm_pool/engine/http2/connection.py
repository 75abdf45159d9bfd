"""A connection that speaks HTTP/2 (RFC 9113): concurrent exchanges, each on a stream of its own."""

from __future__ import annotations

import asyncio

from llm_pool.exceptions import LLMPoolError, PoolClosed, ProtocolError, ReadFailed, in_parentheses

from ..closing import abort
from ..connection import Connection, Owner
from ..exchange import Exchange
from ..framing import Framing
from ..loops.host_loop import HostLoop
from ..request import Request
from ..tls_alerts import client_cert_error
from ..unread import read_unread
from .frames import MAX_NUMBER, BrokenRule, ErrorCode
from .head import encode_head
from .heartbeat import Heartbeat
from .stream import HTTP2Stream
from .uploads import Uploads
from .wire import Wire

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
        self.wire: Wire[HTTP2Stream] = Wire(self)
        self._uploads = Uploads(self.wire)
        self._heartbeat = Heartbeat(host_loop.loop, lambda: self.wire.streams, self._ping, self._on_dead)
        self._second_ends_at = 0.0  # when the wire's ``idle_frames`` are counted anew, on the loop's clock
        self._flush_scheduled = False
        self._writing_paused = False
        self._retire_reason: str | None = None  # set when it accepts no new calls any more
        self._goaway_reason = ""  # the error code of the server's GOAWAY, for error texts

    # For the pool

    def start(self, request: Request) -> Exchange:
        """See ``Connection.start``."""
        stream = HTTP2Stream(self)
        exchange = stream.exchange = Exchange(self.host_loop, stream, request)
        if request.body is None:
            stream.framing = Framing(request.head)
        assert self.transport is not None
        streams, ended = self.wire.streams, self.wire.closed
        if self.transport.is_closing() and not ended:
            exchange.unsent = True
            stream.number = min((0, *streams)) - 1
            streams[stream.number] = stream  # ``connection_lost`` is about to be called, with the cause
            return exchange
        if ended or self._retire_reason or not self._open_stream(stream, request):
            return self._refuse_call(exchange)
        self._heartbeat.on_request()
        if request.body is not None:
            stream.send_complete_body(request.body)
        self.flush()
        return exchange

    def has_unread(self) -> bool:
        """See ``Connection.has_unread``. False while calls are open, since their input is expected."""
        return not self.wire.streams and super().has_unread()

    async def is_still_open(self) -> bool:
        """See ``Connection.is_still_open``. Returns True if it is retired: ``start`` refuses the call."""
        await read_unread(self.has_unread)
        return not self.wire.closed

    def close(self) -> None:
        """See ``Connection.close``."""
        self._fail_all(PoolClosed("the pool was closed during the call"))
        if self.transport is None or self.wire.closed:
            return
        has_unsent = self.transport.get_write_buffer_size() > 0
        self.wire.close()
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
        state = "closed" if self.wire.closed else f"{len(self.wire.streams)} streams"
        return f"<HTTP2Connection {state}>"

    # For the streams

    def is_open(self, stream: HTTP2Stream) -> bool:
        """Return whether the stream is open: it was opened, and neither it nor the connection has ended."""
        return stream.number > 0 and stream.number in self.wire.streams and not self.wire.closed

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
        if self.wire.streams.pop(stream.number, None) is None:
            return
        stream.watchdog.stop()
        if stream.exchange.refused:
            # Later: the refused call is sent again, and must first be back in the queue.
            self.host_loop.loop.call_soon(self._release_place)
        else:
            self._release_place()

    def reset(self, stream: HTTP2Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
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
            self.wire.receive(data)
            if self._writing_paused:
                self._check_unsent()
        except BrokenRule as error:
            self.wire.close(error.code)
            self._write()
            self._fail_and_abort(ProtocolError(f"the server broke the rules of HTTP/2: {error}"))
            return
        if self.wire.outgoing and not self._flush_scheduled:
            self._write()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        super().connection_lost(error)  # first, so that the pool puts no other call on this connection
        why = in_parentheses(error) or self._goaway_reason
        for stream in list(self.wire.streams.values()):
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

    # For the wire

    def _check_unsent(self) -> None:
        """Raise BrokenRule if too much is unsent: the server sends frames and reads no answers."""
        assert self.transport is not None
        if self.transport.get_write_buffer_size() > MAX_UNSENT:
            text = f"the server sends frames, and leaves {MAX_UNSENT} bytes unread"
            raise BrokenRule(ErrorCode.ENHANCE_YOUR_CALM, text)

    def on_settings(self) -> None:
        """Report the server's limit of streams. The settings can also have enlarged the streams' windows."""
        allowed = min(self.wire.max_streams, self._max_streams)
        if allowed != self.capacity or not self.announced:
            self.announced = True
            self.capacity = allowed
            if self.entry is not None:
                self.owner.resized(self.entry, allowed)
        for stream in list(self.wire.streams.values()):
            stream.resume_upload()

    def on_window(self) -> None:
        """Continue the uploads: the connection's window has become larger."""
        self._send_uploads()

    def on_goaway(self, last: int, code: int) -> None:
        """Retire the connection. Fail the calls on streams above ``last``.

        The server has not processed those calls (RFC 9113, section 6.8), so they can be sent again. Streams
        up to ``last`` can still be answered.
        """
        if code:
            self._goaway_reason = f" ({ErrorCode.name_of(code)})"
        self._retire("goaway")
        for number, stream in list(self.wire.streams.items()):
            if number > last:
                stream.exchange.refused = True
                origin = stream.exchange.request.origin
                stream.fail(ReadFailed(f"{origin} is closing the connection{self._goaway_reason}"))

    # Sending

    def _open_stream(self, stream: HTTP2Stream, request: Request) -> bool:
        """Send the head of the request on a new stream. Return False if the connection can open none."""
        wire = self.wire
        if len(wire.streams) >= wire.max_streams:
            return False  # the server has lowered its limit since the ledger chose this connection
        if wire.next_number > MAX_NUMBER:  # all 2**30 numbers were used (RFC 9113, section 5.1.1)
            self._retire("lifetime")
            return False
        wire.open(stream, encode_head(request), ended=request.body == b"")
        return True

    def _write(self) -> None:
        self._flush_scheduled = False
        if self.transport is None or self.transport.is_closing():
            return
        if outgoing := self.wire.outgoing:
            self.transport.write(bytes(outgoing))
            outgoing.clear()
            self._send_uploads()
            if outgoing:
                self.flush()

    def _send_uploads(self) -> None:
        if not self._writing_paused:  # otherwise the transport accepts no more data
            self._uploads.send()

    def _ping(self) -> None:
        self.wire.ping()
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
        self.wire.closed = True
        self._heartbeat.stop()

    def _fail_and_abort(self, error: LLMPoolError) -> None:
        self.loss = error
        self._retire("unclean")
        self._fail_all(error)
        self.abort()

    def _fail_all(self, error: LLMPoolError) -> None:
        for stream in list(self.wire.streams.values()):
            stream.fail(type(error)(str(error)))  # a new error for each call, with its own traceback

    def _on_dead(self) -> None:
        self._fail_and_abort(ReadFailed("the connection is dead: no answer to a PING"))
