"""A connection that speaks HTTP/1.1 (RFC 9112), one exchange at a time."""

from __future__ import annotations

from llm_pool.exceptions import LLMPoolError, PoolClosed, ProtocolError, ReadFailed, in_parentheses

from ..closing import abort, has_unacknowledged_data
from ..connection import Connection, Owner
from ..deadlines import deadline_of, is_past_total, timeout_error
from ..exchange import DRAIN_BYTES, DRAIN_SECONDS, Exchange
from ..framing import Framing
from ..head import Headers
from ..loops.host_loop import HostLoop
from ..request import Request
from ..tls_alerts import client_cert_error
from ..unread import read_unread
from ..watchdog import Watchdog
from .keep_alive import CloseDetector, KeepAliveHistory
from .response import ResponseParser

__all__ = ["HTTP11Connection"]

MAX_SHOWN = 200  # bytes of an unexpected response that an error quotes
NOTHING = memoryview(b"")
WRITE_SIZE = 64 * 1024  # bytes of a request's body that are written to the transport at a time


class HTTP11Connection(Connection):
    """Speaks HTTP/1.1 on a transport. All methods run on the host loop.

    ``host_loop``      the event loop that it belongs to
    ``owner``          receives the facts about it
    ``history``        whether the origin has kept its connections open so far
    ``proxy_headers``  the headers for an HTTP proxy that forwards requests without TLS; None without such a
                       proxy
    """

    def __init__(
        self,
        host_loop: HostLoop,
        owner: Owner,
        history: KeepAliveHistory,
        *,
        proxy_headers: Headers | None = None,
    ) -> None:
        super().__init__(host_loop, owner)
        self._close_detector = CloseDetector(host_loop.loop, history)
        self._proxy_headers = proxy_headers
        self._exchange: Exchange | None = None
        self._framing: Framing | None = None  # encodes a body that follows piece by piece
        self._response = ResponseParser()
        self._watchdog = Watchdog(host_loop.loop, self._timed_out)
        self._writing_paused = False
        self._unsent_body = NOTHING  # the part of the request's body that was not written yet
        self._buffered = 0  # bytes in the transport's write buffer when progress was last checked
        self._eof = False
        self._to_drain = -1  # how many more bytes of a closed response are read; -1 if it is not closed

    # For the pool

    def start(self, request: Request) -> Exchange:
        """See ``Connection.start``. Sets ``Exchange.unsent`` if no byte could be sent."""
        exchange = Exchange(self.host_loop, self, request)
        if self.closed or self._eof or self.transport is None:
            exchange.unsent = True
            exchange.on_error(ReadFailed(f"{request.origin} has closed the connection"))
            return exchange
        self._framing = None if request.body is not None else Framing(request.head)
        self._exchange = exchange
        self._response.expect(exchange)
        if self.transport.is_closing():
            exchange.unsent = True
            return exchange  # ``connection_lost`` is about to be called, with the cause
        body = request.body or b""
        if len(body) > WRITE_SIZE:
            self._unsent_body, body = memoryview(body)[WRITE_SIZE:], body[:WRITE_SIZE]
        self.transport.write(self._encode_head(request) + body)
        if self.transport.is_closing():  # the kernel refused the first byte
            exchange.unsent = True
            self._fail_exchange(ReadFailed(f"{request.origin} has closed the connection"))
        elif self._unsent_body:
            self._write_body()
        return exchange

    async def is_still_open(self) -> bool:
        """See ``Connection.is_still_open`` and ``KeepAliveHistory``."""
        if self.unverified and not self._eof:
            await self._close_detector.wait()
        await read_unread(self.has_unread)
        if self._eof or self.closed:
            return False
        if self.has_unread():  # more than the host loop reads in one step, and no call expects any
            self.abort()
            return False
        if self.unverified:
            self._close_detector.on_kept()
        return True

    def close(self) -> None:
        """See ``Connection.close``."""
        self._fail_exchange(PoolClosed("the pool was closed during the call"))
        self._watchdog.stop()
        if self.transport is None or self.closed:
            return
        if has_unacknowledged_data(self.transport):
            abort(self.transport)  # ``transport.close`` would wait until the server has read all data
        else:
            self.transport.close()

    def abort(self) -> None:
        """See ``Connection.abort``."""
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

    def watch(self, exchange: Exchange) -> None:
        writing = exchange.awaited == "room" or self._writing_paused
        self._watchdog.watch(deadline_of(exchange, self.host_loop.loop.time(), writing=writing))

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        assert self.transport is not None and self._framing is not None
        self.transport.write(self._framing.frame(data))

    def end_body(self, exchange: Exchange) -> None:
        assert self.transport is not None and self._framing is not None
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
        """End an exchange that its caller has closed.

        The connection can be reused if the rest of the response comes within ``DRAIN_SECONDS`` and
        ``DRAIN_BYTES``, and is aborted otherwise. It is aborted at once if the head of the response has not
        arrived, or if the server has not received the whole request.
        """
        if exchange is not self._exchange:
            return
        if self._response.has_head and self._is_delivered(exchange.request):
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
            line = data[:MAX_SHOWN].partition(b"\r\n")[0]
            self.loss = ProtocolError(f"the server sent {line!r}, and no request was sent before")
            self.abort()
            return
        exchange.answered = True
        error = self._response.feed(data)
        if error is not None:
            self._fail_and_abort(error)
        elif self._response.complete:
            self._finish_exchange()
        elif self._to_drain >= 0:
            self._to_drain -= len(data)
            if self._to_drain < 0:
                self._abort_exchange()
        elif not self._writing_paused and (self._response.overhead or exchange.awaited == "end"):
            exchange.on_progress()

    def eof_received(self) -> bool:
        self._note_close()
        self._eof = True
        if self._exchange is not None and self._response.end():
            self._finish_exchange()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._note_close()
        self.closed = True
        self._close_detector.wake()
        self._watchdog.stop()
        exchange = self._exchange
        if exchange is not None:
            self._fail_exchange(_connection_lost_error(exchange, error))
        super().connection_lost(error)

    def pause_writing(self) -> None:
        assert self.transport is not None
        self._writing_paused = True
        self._buffered = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._exchange is not None:
            self._write_body()
            self._exchange.on_room()

    # Sending

    def _encode_head(self, request: Request) -> bytes:
        if self._proxy_headers is None:
            return request.head.encode(request.body)
        return request.head.encode_for_proxy(request.body, self._proxy_headers)

    def _write_body(self) -> None:
        """Write the request's body to the transport piece by piece, while the transport accepts more data.

        A TLS transport would copy a whole body into its buffers, and does not report their size. The copied
        bytes would count as sent for the write timeout, and as received for ``_is_delivered``.
        """
        assert self.transport is not None
        while self._unsent_body and not self._writing_paused:
            self.transport.write(self._unsent_body[:WRITE_SIZE])
            self._unsent_body = self._unsent_body[WRITE_SIZE:]

    def _is_delivered(self, request: Request) -> bool:
        """Return whether the server has received the whole request.

        A ``request.body`` of at most ``WRITE_SIZE`` bytes counts as received when it was written: the
        server's receive buffer has room for it.
        """
        assert self.transport is not None
        if self._framing is not None:
            return self._framing.complete and not has_unacknowledged_data(self.transport)
        is_long = request.body is not None and len(request.body) > WRITE_SIZE
        return not (is_long and has_unacknowledged_data(self.transport))

    # Endings

    def _note_close(self) -> None:
        """Report the server's close to the ``CloseDetector``: once, and only if no response has begun."""
        has_response_begun = self._exchange is not None and self._exchange.answered
        if not (has_response_begun or self._eof):
            self._close_detector.on_close()

    def _finish_exchange(self) -> None:
        """Release the connection after a complete response, and report whether it can be reused."""
        exchange = self._exchange
        assert exchange is not None and self.transport is not None and self.entry is not None
        self._exchange = None
        self._watchdog.deadline = None
        self._to_drain = -1
        response = self._response
        clean = response.keeps_alive and not response.surplus and self._is_delivered(exchange.request)
        reusable = clean and not self.transport.is_closing() and not exchange.request.head.closes
        if reusable:
            self.transport.resume_reading()
            self.unverified = self._close_detector.on_response(chunked=response.is_chunked)
        self.owner.released(self.entry, reusable=reusable, hint=response.hint)

    def _fail_and_abort(self, error: LLMPoolError) -> None:
        self._fail_exchange(error)
        self.abort()

    def _abort_exchange(self) -> None:
        """Release and abort the connection of an exchange that its caller has closed."""
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
        now = self.host_loop.loop.time()
        is_past = is_past_total(exchange, now)
        if not exchange.is_awaited and not is_past:
            self._watchdog.watch(exchange.total_at)
            return
        if self._writing_paused and not is_past:
            buffered = transport.get_write_buffer_size()
            if buffered < self._buffered:  # the server has accepted a part of the request
                self._buffered = buffered
                self.watch(exchange)
                return
        self._fail_and_abort(timeout_error(exchange, now, writing=self._writing_paused))


def _connection_lost_error(exchange: Exchange, error: Exception | None) -> LLMPoolError:
    origin = exchange.request.origin
    why = in_parentheses(error)
    if not exchange.answered:
        no_answer = ReadFailed(f"{origin} closed the connection without an answer{why}")
        return client_cert_error(error, origin) or no_answer
    if not exchange.status:
        return ProtocolError(f"{origin} closed the connection in the middle of a response head{why}")
    return ProtocolError(f"{origin} closed the connection before the response was complete{why}")
