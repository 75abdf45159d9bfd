"""One call on a connection: a request and its response."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Literal, Protocol

from llm_pool.exceptions import (
    LLMPoolError,
    PoolClosed,
    ProtocolError,
)

from .clock import monotonic
from .content_coding import BodyError, ContentDecoder, begin_decoding, content_coding
from .head import Headers
from .loops.host_loop import HostLoop
from .request import Request, WholeResponse, answer_too_large

__all__ = ["Carrier", "Event", "Exchange"]

DRAIN_SECONDS = 0.1  # how long the rest of a closed response is read, to reuse its connection
DRAIN_BYTES = 64 * 1024  # how many bytes of that rest are read
HIGH_WATER = 256 * 1024  # bytes buffered for a slow reader before the connection stops reading


Event = Literal["head", "data", "end", "room"]
"""What the caller of an exchange waits for: the head of the response, a piece or the end of its body, or room
for a piece of the request's body. No Enum: in Python 3.11 reading a member costs more than a function call.
"""


class Carrier(Protocol):
    """What an exchange uses of its carrier: an HTTP/1.1 connection, an HTTP/2 stream or a ``Transfer``.

    ``has_room``           whether the next piece of the request's body can be sent now
    ``watch``              restarts the write timeout if the caller waits for room or if a part of the request
                           is not sent yet, otherwise the read timeout. When it has ended, and
                           the caller no longer waits, only the total timeout remains
    ``send_body``          sends a piece of the request's body
    ``end_body``           ends the request's body
    ``pause``, ``resume``  stop and resume reading the response
    ``cancel``             ends an exchange that its caller has closed
    """

    @property
    def has_room(self) -> bool: ...
    def watch(self, exchange: Exchange) -> None: ...
    def send_body(self, exchange: Exchange, data: bytes) -> None: ...
    def end_body(self, exchange: Exchange) -> None: ...
    def pause(self, exchange: Exchange) -> None: ...
    def resume(self, exchange: Exchange) -> None: ...
    def cancel(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and its response on a connection. The caller reads the response from the exchange.

    All methods but ``close_threadsafe`` run on ``host_loop``. Only one task at a time can wait in a method.
    The connection calls the methods whose names begin with ``on_``. The connection is in use until the
    exchange ends: read every exchange to its end, or close it.

    ``host_loop``           the event loop of the connection
    ``request``             the request
    ``marks``               when the parts of the call took place: ``request.marks``
    ``status``              the HTTP status; 0 before the head has arrived
    ``reason``              the reason phrase; b"" in HTTP/2
    ``http_version``        b"HTTP/1.0", b"HTTP/1.1" or b"HTTP/2"
    ``headers``             the headers of the response, as they arrived; without ``Content-Encoding`` and
                            ``Content-Length`` if the body is decoded
    ``coding``              the content coding of the body if it is not decoded, for lack of a decoder; "" if
                            the body is decoded or was not compressed
    ``unsent``              whether the exchange failed before any byte of the request was sent
    ``refused``             whether the request is known not to have been processed: the server has reported
                            that, or the connection accepted no more calls
    ``answered``            whether bytes of a response have arrived
    ``error``               the error with which the exchange failed; None if it has not failed
    ``complete``            whether the whole response has arrived
    ``closed``              whether the caller has closed the exchange
    ``awaited``             what the caller waits for, or has waited for last
    ``is_complete_enough``  whether the caller has all data that it needs; closing the exchange then does not
                            count as a cancellation
    ``total_at``            when the total timeout ends, in seconds of the loop's clock; None if there is none
    """

    __slots__ = ("__weakref__", "_buffered", "_carrier", "_chunks", "_decoder", "_end_callback",
                 "_future", "_paused", "answered", "awaited", "closed", "coding", "complete", "error",
                 "headers", "host_loop", "http_version", "is_complete_enough", "marks", "reason",
                 "refused", "request", "status", "total_at", "unsent")  # fmt: skip

    def __init__(self, host_loop: HostLoop, carrier: Carrier, request: Request) -> None:
        self.host_loop = host_loop
        self.request = request
        self.marks = request.marks
        self.status = 0
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.headers: Headers = []
        self.coding = ""
        self.unsent = False
        self.refused = False
        self.answered = False
        self.error: LLMPoolError | None = None
        self.complete = False
        self.closed = False
        self.is_complete_enough = False
        self.total_at: float | None = None
        self._end_callback: Callable[[Exchange], None] | None = None
        self._carrier = carrier
        self._decoder: ContentDecoder | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._future: asyncio.Future[None] | None = None
        self.awaited: Event = "head"

    # For the caller

    async def head(self) -> None:
        """Wait until status and headers of the response have arrived.

        Raises ``error`` if the exchange fails first, or PoolClosed if it is closed first.
        """
        while (future := self.pending("head")) is not None:
            await future

    async def read(self) -> bytes:
        """Return the data of the response's body that has arrived since the last read, decompressed.

        If there is no such data, wait. Returns ``b""`` at the end of the body. Raises ``error`` if the
        exchange fails first, or PoolClosed if it is closed first.
        """
        if self._decoder is not None:
            return await self._read_decoded(self._decoder)
        while not self._chunks:
            if self.complete:
                return b""
            self._raise_if_failed()
            await self._wait("data")
        return self._take()

    def whole(self) -> WholeResponse | None:
        """Return the whole response if it has arrived and needs no decoding, and None otherwise."""
        if not self.complete or self._decoder is not None:
            return None
        return WholeResponse(self.status, self.headers, b"".join(self._chunks), self.marks, self.coding)

    async def read_all(self, limit: int = sys.maxsize) -> WholeResponse:
        """Read the response's body to its end, and return the whole response.

        Raises AnswerTooLarge if the body has more than ``limit`` bytes (decompressed), ``error`` if the
        exchange fails first, or PoolClosed if it is closed first.
        """
        if self._decoder is not None:
            return await self._read_all_decoded(self._decoder, limit)
        pieces = []
        while self.marks.received <= limit:
            if self.complete:
                pieces.append(self._take())
                return WholeResponse(self.status, self.headers, b"".join(pieces), self.marks, self.coding)
            self._raise_if_failed()
            pieces.append(self._take())  # a full buffer would pause the connection
            await self._wait("end")
        raise answer_too_large(limit, self.request.origin)

    async def _read_decoded(self, decoder: ContentDecoder) -> bytes:
        if self.closed:
            self._raise_if_failed()
        try:
            while not (data := decoder.read()):
                if self._chunks:
                    decoder.feed(self._take())
                elif self.complete:
                    decoder.end()
                    break
                else:
                    self._raise_if_failed()
                    await self._wait("data")
        except BodyError as error:
            failure = ProtocolError(f"{self.request.origin} sent {error}")
            self.close(failure)
            raise failure from None
        return data

    async def _read_all_decoded(self, decoder: ContentDecoder, limit: int) -> WholeResponse:
        pieces, size = [], 0
        while piece := await self._read_decoded(decoder):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise answer_too_large(limit, self.request.origin)
            await asyncio.sleep(0)  # a large body must not block the loop
        return WholeResponse(self.status, self.headers, b"".join(pieces), self.marks)

    async def write(self, data: bytes) -> bool:
        """Wait until a piece of the request's body can be sent, send it, and return True.

        Returns False, without sending the piece, if the response has begun. Raises ``error`` if the exchange
        fails, or PoolClosed if it is closed. Raises InvalidRequest if the body exceeds its Content-Length.
        """
        while not self.status:
            self._raise_if_failed()
            if self._carrier.has_room:
                self.marks.sent += len(data)
                self._carrier.send_body(self, data)
                return True
            await self._wait("room")
        return False

    async def finish(self) -> None:
        """End the request's body, unless the response has begun or the exchange has failed.

        Raises InvalidRequest if the body is shorter than its Content-Length.
        """
        if not self.status and self.error is None:
            self._carrier.end_body(self)

    def close_threadsafe(self) -> None:
        """Do the same as ``close``, from any thread. Returns without waiting for the close."""
        if self.complete or self.closed:
            return
        try:
            self.host_loop.post(self.close)
        except PoolClosed:
            return  # the connection has ended with its event loop

    def close(self, error: LLMPoolError | None = None) -> None:
        """End the call, and discard the rest of its response. Can be called more than once.

        ``error``: why the response cannot be used. The call then counts as failed, and not as cancelled.

        The engine's HTTP/2 resets the stream. Every other connection can be reused if the whole request was
        sent, the head of the response has arrived, and the rest arrives within ``DRAIN_SECONDS`` and is at
        most ``DRAIN_BYTES`` long; otherwise the connection is closed.
        """
        if self.closed:
            return
        self.closed = True
        self._chunks.clear()
        if not self.complete and self.error is None:
            self._resume_reading()
            self._carrier.cancel(self)
            self.error = error
            self._report_end()
        self._wake()

    def __repr__(self) -> str:
        state = (
            "complete" if self.complete else "failed" if self.error else "closed" if self.closed else "open"
        )
        return (
            f"<Exchange {self.request.head.method.decode('ascii', 'replace')} {self.request.origin} {state}>"
        )

    # For the connection

    def on_head(self, status: int, reason: bytes, version: bytes, headers: Headers) -> None:
        self.status, self.reason, self.http_version, self.headers = status, reason, version, headers
        if (coding := content_coding(headers)) and self.request.head.method != b"HEAD" and status != 304:
            self._decoder, self.coding, self.headers = begin_decoding(coding, headers)
        if not self.marks.first_byte:
            self.marks.first_byte = monotonic()
        if self.awaited != "end" or self._must_be_read:  # ``write`` too must return now
            self._wake()

    def on_data(self, data: bytes) -> None:
        if self.closed:
            return
        self._chunks.append(data)
        self._buffered += len(data)
        self.marks.received += len(data)
        if self.awaited == "data":
            self._wake()
        if self._buffered > HIGH_WATER:
            if self.awaited == "end" and self.is_awaited:
                self._wake()
            elif not self._paused:
                self._paused = True
                self._carrier.pause(self)

    def on_progress(self) -> None:
        """Restart the read timeout: a part of the response has come that does not end the caller's wait."""
        if self.awaited != "room" and self.is_awaited:
            self._carrier.watch(self)

    def on_end(self) -> None:
        self.complete = True
        self.marks.ended = monotonic()
        if self._end_callback is not None:
            self._report_end()
        self._wake()

    def on_error(self, error: LLMPoolError) -> None:
        if self.error is None and not self.complete:
            self.error = error
            self.marks.ended = monotonic()
            self._report_end()
            self._wake()

    def on_room(self) -> None:
        if self.awaited == "room":
            self._wake()
        elif self.is_awaited:
            # The caller waits for the response. If the upload has ended, the read timeout begins now.
            self._carrier.watch(self)

    def call_at_end(self, callback: Callable[[Exchange], None]) -> None:
        """Call ``callback(exchange)`` once, when the exchange is complete, fails or is closed.

        If the exchange is complete or has failed already, call ``callback`` now. Must be called before
        ``close``.
        """
        if self.complete or self.error is not None:
            callback(self)
        else:
            self._end_callback = callback

    def _report_end(self) -> None:
        callback, self._end_callback = self._end_callback, None
        if callback is not None:
            callback(self)

    # Waiting

    def pending(self, event: Event) -> asyncio.Future[None] | None:
        """Return a future to await before ``event``, which is "head" or "end"; None if it has come.

        When the future is done, ask again: the wait can have ended for another reason. The end also counts as
        come if the caller has to read before it. Raises what ``head`` raises.
        """
        if self.status and (event == "head" or self.complete or self._must_be_read):
            return None
        if self.error is not None or self.closed:
            self._raise_if_failed()
        return self._wait(event)

    @property
    def _must_be_read(self) -> bool:
        """Whether the caller must read before the end: the buffer is full, or what comes must be decoded."""
        return self._buffered > HIGH_WATER or self._decoder is not None

    @property
    def is_awaited(self) -> bool:
        """Whether the caller waits now. The read and write timeouts count only then."""
        return self._future is not None and not self._future.done()

    def _wait(self, event: Event) -> asyncio.Future[None]:
        self.awaited = event
        self._future = future = self.host_loop.loop.create_future()
        self._carrier.watch(self)
        return future

    def _wake(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        self._resume_reading()
        return data

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._carrier.resume(self)

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error
        if self.closed:
            raise PoolClosed("the response was closed before it was read")
