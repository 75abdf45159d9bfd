"""One request and its response on a connection, as the caller holds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from llm_pool.exceptions import LLMPoolError, PoolClosed, ReadTimeout, TotalTimeout, WriteTimeout

from .loops.host_loop import HostLoop
from .request import Headers, Request, WholeResponse

__all__ = ["Carrier", "Exchange"]

DRAIN_SECONDS = 0.1  # how long the rest of a closed response is read, so that its connection can be reused
DRAIN_BYTES = 64 * 1024  # how much of it is read
HIGH_WATER = 256 * 1024  # bytes buffered for a slow reader before the connection stops reading


class _Until(Enum):
    HEAD = "head"
    DATA = "data"
    END = "end"
    ROOM = "room"


class Carrier(Protocol):
    """The part of a connection, or of a stream on it, that carries one exchange."""

    @property
    def has_room(self) -> bool: ...
    def watch(self, exchange: Exchange, *, writing: bool) -> None: ...
    def unwatch(self, exchange: Exchange) -> None: ...
    def send_body(self, exchange: Exchange, data: bytes) -> None: ...
    def end_body(self, exchange: Exchange) -> None: ...
    def pause(self, exchange: Exchange) -> None: ...
    def resume(self, exchange: Exchange) -> None: ...
    def cancel(self, exchange: Exchange) -> None: ...


class Exchange:
    """The caller's end of a call. Everything but ``close_threadsafe`` is called on its host loop.

    One task at a time reads. The connection feeds the exchange through the methods that begin with ``on_``,
    and holds it until it ends: read every exchange to its end, or close it.
    """

    def __init__(self, host_loop: HostLoop, carrier: Carrier, request: Request) -> None:
        self.host_loop = host_loop
        self.request = request
        self.marks = request.marks
        self.status = 0
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.headers: Headers = []
        self.unsent = False  # nothing of the request reached the wire
        self.refused = False  # the server says that it did not process the request
        self.answered = False  # bytes of a response have come
        self.error: LLMPoolError | None = None
        self.complete = False
        self.closed = False
        self.is_complete_enough = False  # the caller has all it needs: closing now is no cancellation
        self.total_at: float | None = None  # deadline of the whole call
        self._end_callback: Callable[[Exchange], None] | None = None
        self._carrier = carrier
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None
        self._until = _Until.HEAD

    # For the caller

    async def head(self) -> None:
        """Wait for the status line and headers."""
        while not self.status:
            self._raise_if_failed()
            await self._wait(_Until.HEAD)

    async def read(self) -> bytes:
        """Return what has come of the body since the last read, or wait for some; ``b""`` at its end."""
        while not self._chunks:
            if self.complete:
                return b""
            self._raise_if_failed()
            await self._wait(_Until.DATA)
        return self._take()

    async def read_all(self) -> WholeResponse:
        """Read to the end."""
        pieces = []
        while not self.complete:
            self._raise_if_failed()
            pieces.append(self._take())  # or the reading would stop at the high-water mark
            await self._wait(_Until.END)
        pieces.append(self._take())
        return WholeResponse(self.status, self.headers, b"".join(pieces), self.marks)

    async def write(self, data: bytes) -> bool:
        """Send a piece of the body. False if the response has begun already: then send no more."""
        while not self.status:
            self._raise_if_failed()
            if self._carrier.has_room:
                self.marks.sent += len(data)
                self._carrier.send_body(self, data)
                return True
            await self._wait(_Until.ROOM)
        return False

    async def finish(self) -> None:
        """End the body."""
        if not self.status and self.error is None:
            self._carrier.end_body(self)

    def close_threadsafe(self) -> None:
        """``close`` from any thread, without waiting for it."""
        if self.complete or self.closed:
            return
        try:
            self.host_loop.post(self.close)
        except PoolClosed:
            return  # its event loop has ended, and the connection with it

    def close(self) -> None:
        """Discard what has not been read, and free the connection: it is drained within 100 ms, or closed."""
        if self.closed:
            return
        self.closed = True
        self._chunks.clear()
        if not self.complete and self.error is None:
            self._resume_reading()
            self._carrier.cancel(self)
            self._report_end()
        self._wake(None)

    def __repr__(self) -> str:
        state = (
            "complete" if self.complete else "failed" if self.error else "closed" if self.closed else "open"
        )
        return f"<Exchange {self.request.method.decode('ascii', 'replace')} {self.request.origin} {state}>"

    # For the connection

    def on_head(self, status: int, reason: bytes, version: bytes, headers: Headers) -> None:
        self.status, self.reason, self.http_version, self.headers = status, reason, version, headers
        if not self.marks.first_byte:
            self.marks.first_byte = time.monotonic()
        self._wake(_Until.HEAD)

    def on_data(self, data: bytes) -> None:
        if self.closed:
            return
        self._chunks.append(data)
        self._buffered += len(data)
        self.marks.received += len(data)
        if self._until is _Until.DATA:
            self._wake(_Until.DATA)
        elif self._waiting is not None:
            self._carrier.watch(
                self, writing=False
            )  # a read to the end: each piece restarts the read timeout
        if self._buffered > HIGH_WATER:
            if self._until is _Until.END and self._waiting is not None:
                self._wake(_Until.END)
            elif not self._paused:
                self._paused = True
                self._carrier.pause(self)

    def on_end(self) -> None:
        self.complete = True
        self.marks.ended = time.monotonic()
        self._report_end()
        self._wake(None)

    def on_error(self, error: LLMPoolError) -> None:
        if self.error is None and not self.complete:
            self.error = error
            self.marks.ended = time.monotonic()
            self._report_end()
            self._wake(None)

    def on_room(self) -> None:
        if self._until is _Until.ROOM:
            self._wake(_Until.ROOM)
        elif self._waiting is not None:
            self._carrier.watch(
                self, writing=False
            )  # the upload is through: from now on the read timeout counts

    def call_at_end(self, callback: Callable[[Exchange], None]) -> None:
        """Call ``callback`` once when the exchange is complete, has failed or was closed; now, if it has."""
        self._end_callback = callback
        if self.complete or self.error is not None:
            self._report_end()

    def deadline(self, now: float, *, writing: bool) -> float | None:
        """When the exchange times out if nothing moves: by the read or write timeout, and the total."""
        pace = self.request.timeouts.write if writing else self.request.timeouts.read
        if pace is None:
            return self.total_at
        return now + pace if self.total_at is None else min(now + pace, self.total_at)

    def is_past_total(self, now: float) -> bool:
        """Whether the whole call has taken too long."""
        return self.total_at is not None and now >= self.total_at

    def timeout_error(self, now: float, *, writing: bool) -> LLMPoolError:
        """Return the error for a ``deadline`` that has passed: the total, write or read timeout's."""
        timeouts, origin = self.request.timeouts, self.request.origin
        if self.is_past_total(now):
            return TotalTimeout(f"the call to {origin} took longer than its {timeouts.total} s")
        if writing:
            return WriteTimeout(f"{origin} took nothing of the request for {timeouts.write} s")
        return ReadTimeout(f"{origin} sent nothing for {timeouts.read} s")

    def _report_end(self) -> None:
        callback, self._end_callback = self._end_callback, None
        if callback is not None:
            callback(self)

    # Waiting

    async def _wait(self, until: _Until) -> None:
        self._until = until
        self._waiting = self.host_loop.loop.create_future()
        self._carrier.watch(self, writing=until is _Until.ROOM)
        try:
            await self._waiting
        finally:
            self._waiting = None
            self._carrier.unwatch(self)

    def _wake(self, for_: _Until | None) -> None:
        """End the wait for ``for_``, or any wait if None. An early head ends a wait for room too."""
        waiting = self._waiting
        if (
            waiting is not None
            and not waiting.done()
            and (for_ is None or for_ is self._until or for_ is _Until.HEAD)
        ):
            waiting.set_result(None)

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
