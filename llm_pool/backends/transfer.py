"""Sends one exchange through another library's client, in its own task and with the pool's timeouts."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

from llm_pool.backends.errors import protocol_error
from llm_pool.backends.upload import Upload
from llm_pool.engine.clock import monotonic
from llm_pool.engine.deadlines import deadline_of, is_past_total, timeout_error
from llm_pool.engine.exchange import DRAIN_BYTES, DRAIN_SECONDS, Exchange
from llm_pool.engine.head import Headers, asks_to_close
from llm_pool.engine.http11.response import MAX_HEAD
from llm_pool.engine.request import Request
from llm_pool.engine.watchdog import Watchdog
from llm_pool.exceptions import (
    ConnectFailed,
    ConnectTimeout,
    LLMPoolError,
    PoolClosed,
    ReadFailed,
)

if TYPE_CHECKING:
    from llm_pool.engine.loops.host_loop import HostLoop

__all__ = ["Transfer"]

logger = logging.getLogger("llm_pool.engine")


class TransferConnection(Protocol):
    """The methods and attributes of ``BackendConnection`` that its transfers use."""

    host_loop: HostLoop

    async def send(self, transfer: Transfer) -> None: ...
    def set_protocol(self, transfer: Transfer, *, http2: bool) -> None: ...
    def dialed(self, seconds: float) -> None: ...
    def dial_failed(self, error: ConnectFailed) -> None: ...
    def due(self) -> None: ...
    def release(self, *, reusable: bool) -> None: ...
    def remove(self, transfer: Transfer) -> None: ...


class Transfer:
    """Carries one exchange. Another library's client reports each step of the exchange to the transfer.

    The transfer applies the timeouts, by the same rules for each library. The libraries' own timers differ:
    httpcore has no timer for a whole call, and aiohttp has no timer for an upload that makes no progress.

    ``request``   the request
    ``exchange``  the exchange, which the caller reads
    ``upload``    the request's body, as the client sends it
    ``surplus``   whether bytes came after the end of the response: no other call can use the connection
    ``task``      the task that runs the client's ``send``
    """

    def __init__(self, connection: TransferConnection, request: Request) -> None:
        self.request = request
        self.exchange = Exchange(connection.host_loop, self, request)
        self.upload = Upload(request, self.exchange.on_room)
        self.surplus = False
        self._connection = connection
        self._loop = connection.host_loop.loop
        self._watchdog = Watchdog(self._loop, self._timed_out)
        self._reading = asyncio.Event()
        self._reading.set()
        self._dialing_since: float | None = None  # the start of the wait for a dial: this call's or another's
        self._own_dial_since: float | None = None  # the start of this call's own dial
        self._to_drain = -1  # bytes that may still be read after the caller has closed the response
        self._head_size = 0  # bytes received before the head of the response was complete
        self._released = False
        # With an empty context: otherwise the task would keep the context variables of the caller's request.
        self.task = self._loop.create_task(self._run(), context=Context())
        self.task.add_done_callback(self._on_task_done, context=Context())

    # For the exchange

    @property
    def has_room(self) -> bool:
        return self.upload.has_room

    def watch(self, exchange: Exchange) -> None:
        if self._dialing_since is None:
            writing = exchange.awaited == "room" or self.upload.pending
            self._watchdog.watch(deadline_of(exchange, self._loop.time(), writing=writing))

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        self.upload.write(data)

    def end_body(self, exchange: Exchange) -> None:
        self.upload.end()

    def pause(self, exchange: Exchange) -> None:
        self._reading.clear()

    def resume(self, exchange: Exchange) -> None:
        self._reading.set()

    def cancel(self, exchange: Exchange) -> None:
        """End an exchange that its caller has closed: read the rest of the response, or abort the call.

        If the request is sent and the response has begun, read the rest of the response, at most
        ``DRAIN_BYTES`` within ``DRAIN_SECONDS``. Otherwise abort the call at once.
        """
        if exchange.status and self.upload.complete:
            self._to_drain = DRAIN_BYTES
            self._watchdog.watch(self._loop.time() + DRAIN_SECONDS)
            if exchange.is_complete_enough:
                self._connection.due()
        else:
            self._abort()

    # For the client

    def on_dial_start(self) -> None:
        """Called when the library's client begins to dial for this call."""
        self._own_dial_since = monotonic()
        self.start_dial_timeout()

    def start_dial_timeout(self) -> None:
        """Start the connect timeout if it is not running.

        Called when the call begins to wait for a dial: its own, or another call's on the same connection.
        """
        if self._dialing_since is None:
            self._dialing_since = monotonic()
            deadline = self.exchange.total_at
            if self.request.timeouts.connect is not None:
                connect_at = self._loop.time() + self.request.timeouts.connect
                deadline = connect_at if deadline is None else min(deadline, connect_at)
            self._watchdog.watch(deadline)

    @property
    def is_dialing(self) -> bool:
        """Whether the library's client is dialing for this call."""
        return self._own_dial_since is not None

    def on_send_start(self, *, http2: bool) -> None:
        """Called when the library's client is connected and begins to send the head of the request.

        ``http2``: whether the protocol of the connection is HTTP/2.
        """
        if self._own_dial_since is not None:
            self._connection.dialed(monotonic() - self._own_dial_since)
            self._own_dial_since = None
        if self._dialing_since is not None:
            marks = self.exchange.marks
            marks.dialing = monotonic() - self._dialing_since
            marks.reused = False
            self._dialing_since = None
            self._watchdog.watch(self.exchange.total_at)
            if self.exchange.is_awaited:
                self.watch(self.exchange)
        self._connection.set_protocol(self, http2=http2)

    def on_received(self, size: int) -> None:
        """Called when ``size`` bytes of the response have arrived: restart the read timeout.

        Before the library reports the head of the response, at most ``MAX_HEAD`` bytes restart it. More bytes
        are no error: the library can have received the head, and much of the body.
        """
        if not self.exchange.status:
            self._head_size += size
        is_bounded = self.exchange.status or self._head_size <= MAX_HEAD
        is_receiving = self._dialing_since is None and not self._released and not self.upload.pending
        if is_bounded and is_receiving:
            self.exchange.on_progress()

    def on_head(self, status: int, reason: bytes, version: bytes, headers: Headers) -> None:
        """Called when the head of the response has arrived.

        Raises ProtocolError for a status below 200: aiohttp passes 101 on, and statuses such as 000.
        """
        self.exchange.answered = True
        if status < 200:
            raise protocol_error(self.exchange, Exception(f"its status is {status:03}"))
        self.exchange.on_head(status, reason, version, headers)

    async def on_data(self, data: bytes) -> None:
        """Called with a piece of the response's body. Returns when the exchange accepts more data.

        If the caller has closed the response, abort the call after ``DRAIN_BYTES``.
        """
        if data:
            self.exchange.on_data(data)
        if self._to_drain >= 0:
            self._to_drain -= len(data)
            if self._to_drain < 0:
                self._abort()
        await self._reading.wait()

    # For the connection

    def fail(self, error: LLMPoolError, *, reusable: bool = False) -> None:
        """Fail the call with ``error`` and release the connection, unless the call has ended already.

        ``reusable``: whether the connection can carry another call.
        """
        if not self._released:
            self._report_dial_failure(error)
            self._release(reusable=reusable)
            self.exchange.on_error(error)

    def abort(self, error: LLMPoolError) -> None:
        """Fail the call with ``error`` and cancel its task, unless the call has ended already.

        The connection is released as not reusable.
        """
        if not self._released:
            self._report_dial_failure(error)
            self._abort()
            self.exchange.on_error(error)

    def refuse_for_http1(self) -> None:
        """Fail the call before its request is sent, so that the call returns to the pool's queue.

        Over HTTP/1.1 the connection carries one call at a time.
        """
        self.exchange.unsent = self.exchange.refused = True
        self.fail(ReadFailed(f"{self.request.origin} speaks HTTP/1.1: one call at a time"), reusable=True)

    # Inside

    async def _run(self) -> None:
        try:
            await self._connection.send(self)
        except LLMPoolError as error:
            self.fail(error)
        else:
            if not self._released:
                self._complete()

    def _report_dial_failure(self, error: LLMPoolError) -> None:
        if self.is_dialing and isinstance(error, ConnectFailed):
            self._connection.dial_failed(error)

    def _complete(self) -> None:
        exchange = self.exchange
        asked_to_close = self.request.head.closes or asks_to_close(exchange.headers)
        keeps_alive = not asked_to_close and exchange.http_version != b"HTTP/1.0"
        self._release(reusable=self.upload.complete and keeps_alive and not self.surplus)
        exchange.on_end()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        # A callback, because ``_run`` never runs if the task is cancelled before its first step.
        self._connection.remove(self)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a call failed unexpectedly", exc_info=error)
            self.fail(ReadFailed(f"the call to {self.request.origin} failed: {error!r}"))
        else:
            self.fail(PoolClosed("the pool's event loop was stopped during the call"))

    def _release(self, *, reusable: bool) -> None:
        if not self._released:
            self._released = True
            self._watchdog.stop()
            self._connection.release(reusable=reusable)

    def _abort(self) -> None:
        """Cancel the task and release the connection as not reusable: the ledger then retires it."""
        self._release(reusable=False)
        self.task.cancel()

    def _timed_out(self) -> None:
        if self._to_drain >= 0:
            self._abort()
            return
        now = self._loop.time()
        is_past, is_dialing = is_past_total(self.exchange, now), self._dialing_since is not None
        error: LLMPoolError
        if not (is_past or is_dialing or self.exchange.is_awaited):
            self._watchdog.watch(self.exchange.total_at)
            return
        if is_dialing and not is_past:
            connect = self.request.timeouts.connect
            error = ConnectTimeout(f"no connection to {self.request.origin} within {connect} s")
        else:
            error = timeout_error(self.exchange, now, writing=self.upload.pending)
        self.abort(error)
