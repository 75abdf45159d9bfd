"""A connection that speaks HTTP/1.1 (RFC 9112), one exchange at a time."""

from __future__ import annotations

import ssl

from llm_pool.exceptions import (
    LLMPoolError,
    PoolClosed,
    ProtocolError,
    ReadFailed,
    ReadTimeout,
    TotalTimeout,
    WriteTimeout,
)

from ..closing import abort, holds_back
from ..connection import Connection, Owner
from ..exchange import Exchange
from ..head import Framing, asks_to_close, encode_head
from ..loops.host_loop import HostLoop
from ..request import Headers, Request
from ..watchdog import Watchdog
from .persistence import Aftermath, Persistence
from .response import ResponseParser

__all__ = ["HTTP11Connection"]

SLICE = 64 * 1024  # bytes of a body that go out at a time
DRAIN_SECONDS = 0.1
DRAIN_BYTES = 64 * 1024


class HTTP11Connection(Connection):
    """Speaks HTTP/1.1 on a transport. Lives on one home, and is touched there only.

    ``forward`` is given where an HTTP proxy takes plain requests for us: the headers that go to the proxy.
    """

    def __init__(
        self, host_loop: HostLoop, owner: Owner, persistence: Persistence, *, forward: Headers | None = None
    ) -> None:
        super().__init__(host_loop, owner)
        self._aftermath = Aftermath(host_loop.loop, persistence)
        self._forward = forward
        self._exchange: Exchange | None = None
        self._framing = Framing(0)
        self._response = ResponseParser()
        self._watchdog = Watchdog(host_loop.loop, self._timed_out)
        self._writing_paused = False
        self._rest = memoryview(b"")  # of a body that the transport had no room for
        self._unwritten = 0
        self._eof = False
        self._to_drain = -1  # bytes that a response left by its caller may still bring

    # For the pool

    def start(self, request: Request) -> Exchange:
        """Send the request, or its head where the body follows. ``unsent`` is set where nothing went out."""
        exchange = Exchange(self.host_loop, self, request)
        if self.closed or self._eof or self.transport is None or self.transport.is_closing():
            exchange.unsent = True
            exchange.on_error(ReadFailed(f"{request.origin} has closed the connection"))
            return exchange
        head, self._framing = encode_head(request, self._forward)
        self._exchange = exchange
        self._response.expect(exchange)
        body = request.body or b""
        self._rest = memoryview(body)[SLICE:]
        self.transport.write(head + body[:SLICE])
        if self.transport.is_closing():  # the kernel refused the first byte
            exchange.unsent = True
            self._fail_exchange(ReadFailed(f"{request.origin} has closed the connection"))
        else:
            self._send_rest()
        return exchange

    async def is_still_open(self) -> bool:
        """See ``Connection.is_still_open``, and ``Persistence``."""
        if not self._eof:
            await self._aftermath.rest()
        if self._eof or self.closed:
            return False
        self._aftermath.kept()
        return True

    def close(self) -> None:
        """Close in good order; an exchange in progress fails."""
        self._fail_exchange(PoolClosed("the pool was closed during the call"))
        self._watchdog.stop()
        if self.transport is None or self.closed:
            return
        if holds_back(self.transport):
            abort(self.transport)  # a close would wait until the server has taken the rest
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._watchdog.stop()
        if self.transport is not None and not self.closed:
            abort(self.transport)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "in use" if self._exchange else "idle"
        return f"<HTTP11Connection {state}>"

    # For the exchange

    @property
    def has_room(self) -> bool:
        return not self._writing_paused

    def watch(self, exchange: Exchange, *, writing: bool) -> None:
        writing = writing or self._writing_paused
        self._watchdog.watch(exchange.deadline(self.host_loop.loop.time(), writing=writing))

    def unwatch(self, exchange: Exchange) -> None:
        if exchange is self._exchange and self._to_drain < 0:
            self._watchdog.watch(exchange.total_at)

    def _send_rest(self) -> None:
        """Send of a body as much as there is room for: the rest must not look as if it were on the wire."""
        assert self.transport is not None
        while self._rest and not self._writing_paused:
            self.transport.write(self._rest[:SLICE])
            self._rest = self._rest[SLICE:]

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self._framing.frame(data))

    def end_body(self, exchange: Exchange) -> None:
        assert self.transport is not None
        end = self._framing.end()
        if end:
            self.transport.write(end)

    def pause(self, exchange: Exchange) -> None:
        if self.transport is not None and exchange is self._exchange:
            self.transport.pause_reading()

    def resume(self, exchange: Exchange) -> None:
        if self.transport is not None and exchange is self._exchange:
            self.transport.resume_reading()

    def cancel(self, exchange: Exchange) -> None:
        """The caller has left. What is almost over is read out; anything else ends the connection."""
        if exchange is not self._exchange:
            return
        if self._response.in_body and self._taken_whole(exchange.request):
            self._to_drain = DRAIN_BYTES
            self._watchdog.watch(self.host_loop.loop.time() + DRAIN_SECONDS)
            if exchange.is_complete_enough and self.entry is not None:
                self.owner.due(self.entry)
        else:
            self._abort_exchange()

    # For the event loop

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked: what came belongs to no call
            return
        exchange.answered = True
        error = self._response.feed(data)
        if error is not None:
            self._broken(error)
        elif self._response.complete:
            self._conclude()
        elif self._to_drain >= 0:
            self._to_drain -= len(data)
            if self._to_drain < 0:
                self._abort_exchange()

    def eof_received(self) -> bool:
        self._note_end()
        self._eof = True
        if self._exchange is not None and self._was_closed_properly() and self._response.end():
            self._conclude()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._note_end()
        self.closed = True
        self._aftermath.wake()
        self._watchdog.stop()
        exchange = self._exchange
        if exchange is not None:
            self._fail_exchange(_broken_off(exchange, error))
        super().connection_lost(error)

    def pause_writing(self) -> None:
        assert self.transport is not None
        self._writing_paused = True
        self._unwritten = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._exchange is not None:
            self._send_rest()
            self._exchange.on_room()

    # Endings

    def _note_end(self) -> None:
        answering = self._exchange is not None and self._exchange.answered
        if not (answering or self._eof):
            self._aftermath.left()

    def _was_closed_properly(self) -> bool:
        """Under TLS anybody may cut a connection: only the server can end it (RFC 9112, section 9.8)."""
        assert self.transport is not None
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        try:
            return tls is None or tls.read() == b""  # otherwise it waits for more
        except ssl.SSLError:
            return False

    def _conclude(self) -> None:
        """The response has come whole: the connection is free, or done for."""
        exchange = self._exchange
        assert exchange is not None and self.transport is not None and self.entry is not None
        self._exchange = None
        self._watchdog.deadline = None
        self._to_drain = -1
        response = self._response
        clean = response.keeps_alive and not response.surplus and self._taken_whole(exchange.request)
        reusable = clean and not self.transport.is_closing() and not asks_to_close(exchange.request.headers)
        if reusable:
            self.transport.resume_reading()
            self.unverified = self._aftermath.answered(chunked=response.is_chunked)
        self.owner.released(self.entry, reusable=reusable, hint=response.hint)

    def _taken_whole(self, request: Request) -> bool:
        """Whether the server has the request. What is no longer than a slice finds room with its kernel."""
        assert self.transport is not None
        long = request.body is None or len(request.body) > SLICE
        return self._framing.complete and not (long and holds_back(self.transport))

    def _broken(self, error: LLMPoolError) -> None:
        self._fail_exchange(error)
        self.abort()

    def _abort_exchange(self) -> None:
        """End an exchange whose caller has left, and the connection with it."""
        self._exchange = None
        self._watchdog.deadline = None
        if self.entry is not None:
            self.owner.released(self.entry, reusable=False, hint=None)
        self.abort()

    def _fail_exchange(self, error: LLMPoolError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._watchdog.deadline = None
        exchange.on_error(error)
        if self.entry is not None:
            self.owner.released(self.entry, reusable=False, hint=None)

    def _timed_out(self) -> None:
        exchange, transport = self._exchange, self.transport
        if exchange is None or transport is None:
            return
        if self._to_drain >= 0:
            self._abort_exchange()
            return
        timeouts, origin = exchange.request.timeouts, exchange.request.origin
        if exchange.is_past_total(self.host_loop.loop.time()):
            self._broken(TotalTimeout(f"the call to {origin} took longer than its {timeouts.total} s"))
        elif not self._writing_paused:
            self._broken(ReadTimeout(f"{origin} sent nothing for {timeouts.read} s"))
        elif (left := transport.get_write_buffer_size()) < self._unwritten:
            self._unwritten = left
            self.watch(exchange, writing=True)
        else:
            self._broken(WriteTimeout(f"{origin} took nothing of the request for {timeouts.write} s"))


def _broken_off(exchange: Exchange, error: Exception | None) -> LLMPoolError:
    origin = exchange.request.origin
    why = f" ({error.__class__.__name__}: {error})" if error is not None else ""
    if not exchange.answered:
        return ReadFailed(f"{origin} closed the connection without an answer{why}")
    if not exchange.status:
        return ProtocolError(f"{origin} closed the connection in the middle of a response head{why}")
    return ProtocolError(f"{origin} closed the connection before the response was complete{why}")
