"""One exchange through another library's client: the task that carries it, its body, its deadlines."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

from llm_pool.backends.upload import Upload
from llm_pool.engine.exchange import DRAIN_BYTES, DRAIN_SECONDS, Exchange
from llm_pool.engine.head import asks_to_close
from llm_pool.engine.request import Headers, Request
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
    """The connection, as far as its transfers use it."""

    host_loop: HostLoop

    async def carry(self, transfer: Transfer) -> None: ...
    def speaks(self, transfer: Transfer, *, http2: bool) -> None: ...
    def dialed(self, seconds: float) -> None: ...
    def dial_failed(self, error: ConnectFailed) -> None: ...
    def expect(self) -> None: ...
    def free(self, *, reusable: bool) -> None: ...
    def forget(self, transfer: Transfer) -> None: ...


class Transfer:
    """The carrier of an exchange. The client reports to it what happens.

    The deadlines are kept here, for every client by the same rules: a client's own timers count other things
    (httpcore has none for a whole call, aiohttp none for an upload that stands still).
    """

    def __init__(self, connection: TransferConnection, request: Request) -> None:
        self.request = request
        self.exchange = Exchange(connection.host_loop, self, request)
        self.upload = Upload(request, self.exchange.on_room)
        self._connection = connection
        self._loop = connection.host_loop.loop
        self._watchdog = Watchdog(self._loop, self._timed_out)
        self._reading = asyncio.Event()
        self._reading.set()
        self._dialing_since: float | None = None
        self._dials_since: float | None = None  # itself: what it waits for may be another's dial
        self._writing: bool | None = None  # what the caller waits for; None while it waits for nothing
        self._to_drain = -1
        self._released = False
        # An empty context: nothing of the caller's request lives on in what the pool does.
        self.task = self._loop.create_task(self._run(), context=Context())
        self.task.add_done_callback(self._ended, context=Context())

    # For the exchange

    @property
    def has_room(self) -> bool:
        return self.upload.has_room

    def watch(self, exchange: Exchange, *, writing: bool) -> None:
        self._writing = writing
        if self._dialing_since is None:
            writing = writing or self.upload.pending
            self._watchdog.watch(exchange.deadline(self._loop.time(), writing=writing))

    def unwatch(self, exchange: Exchange) -> None:
        self._writing = None
        if self._dialing_since is None and self._to_drain < 0:
            self._watchdog.watch(exchange.total_at)

    def send_body(self, exchange: Exchange, data: bytes) -> None:
        self.upload.give(data)

    def end_body(self, exchange: Exchange) -> None:
        self.upload.end()

    def pause(self, exchange: Exchange) -> None:
        self._reading.clear()

    def resume(self, exchange: Exchange) -> None:
        self._reading.set()

    def cancel(self, exchange: Exchange) -> None:
        """The caller has left. What is almost over is read out; anything else is called off."""
        if exchange.status and self.upload.whole:
            self._to_drain = DRAIN_BYTES
            self._watchdog.watch(self._loop.time() + DRAIN_SECONDS)
            if exchange.is_complete_enough:
                self._connection.expect()
        else:
            self._abort()

    # For the client

    def dials(self) -> None:
        """A connection is being made for the call."""
        self._dials_since = time.monotonic()
        self.awaits_dial()

    def awaits_dial(self) -> None:
        """The call waits for a connection to be made, for it or for another."""
        if self._dialing_since is None:
            self._dialing_since = time.monotonic()
            deadline = self.exchange.total_at
            if self.request.timeouts.connect is not None:
                connect_at = self._loop.time() + self.request.timeouts.connect
                deadline = connect_at if deadline is None else min(deadline, connect_at)
            self._watchdog.watch(deadline)

    @property
    def is_dialing(self) -> bool:
        """Whether a connection is being made for the call."""
        return self._dials_since is not None

    def is_sent(self, *, http2: bool) -> None:
        """The head goes out: from now on it is the server's turn."""
        if self._dials_since is not None:
            self._connection.dialed(time.monotonic() - self._dials_since)
            self._dials_since = None
        if self._dialing_since is not None:
            marks = self.exchange.marks
            marks.dialing = time.monotonic() - self._dialing_since
            marks.reused = False
            self._dialing_since = None
            self._watchdog.watch(self.exchange.total_at)
            if self._writing is not None:
                self.watch(self.exchange, writing=self._writing)
        self._connection.speaks(self, http2=http2)

    def on_head(self, status: int, reason: bytes, version: bytes, headers: Headers) -> None:
        """The head of the response has come."""
        self.exchange.answered = True
        self.exchange.on_head(status, reason, version, headers)

    async def on_data(self, data: bytes) -> None:
        """A piece of the response has come. Waits while the caller wants no more."""
        if data:
            self.exchange.on_data(data)
        if self._to_drain >= 0:
            self._to_drain -= len(data)
            if self._to_drain < 0:
                self._abort()
        await self._reading.wait()

    # For the connection

    def fail(self, error: LLMPoolError, *, reusable: bool = False) -> None:
        """The call has ended badly, if it has not ended yet."""
        if not self._released:
            self._blame_dial(error)
            self._finish(reusable=reusable)
            self.exchange.on_error(error)

    def stop(self, error: LLMPoolError) -> None:
        """End the call badly, and what its task does."""
        if not self._released:
            self._blame_dial(error)
            self._abort()
            self.exchange.on_error(error)

    def refuse(self) -> None:
        """What the ledger could not know when it chose this connection: it carries one call at a time."""
        self.exchange.unsent = self.exchange.refused = True
        self.fail(ReadFailed(f"{self.request.origin} speaks HTTP/1.1: one call at a time"), reusable=True)

    # Inside

    async def _run(self) -> None:
        try:
            await self._connection.carry(self)
        except LLMPoolError as error:
            self.fail(error)
        else:
            if not self._released:
                self._conclude()

    def _blame_dial(self, error: LLMPoolError) -> None:
        if self.is_dialing and isinstance(error, ConnectFailed):
            self._connection.dial_failed(error)

    def _conclude(self) -> None:
        exchange = self.exchange
        asked_to_close = asks_to_close(self.request.headers) or asks_to_close(exchange.headers)
        self._finish(
            reusable=self.upload.whole and not asked_to_close and exchange.http_version != b"HTTP/1.0"
        )
        exchange.on_end()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Here and not in the task: one that is cancelled before its first step never runs."""
        self._connection.forget(self)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a call failed unexpectedly", exc_info=error)
            self.fail(ReadFailed(f"the call to {self.request.origin} failed: {error!r}"))
        else:
            self.fail(PoolClosed("the pool's event loop was stopped during the call"))

    def _finish(self, *, reusable: bool) -> None:
        if not self._released:
            self._released = True
            self._watchdog.stop()
            self._connection.free(reusable=reusable)

    def _abort(self) -> None:
        """Transfer the task off; it closes what it holds. The connection is done for."""
        self._finish(reusable=False)
        self.task.cancel()

    def _timed_out(self) -> None:
        if self._to_drain >= 0:
            self._abort()
            return
        now = self._loop.time()
        error: LLMPoolError
        if self._dialing_since is not None and not self.exchange.is_past_total(now):
            connect = self.request.timeouts.connect
            error = ConnectTimeout(f"no connection to {self.request.origin} within {connect} s")
        else:
            error = self.exchange.timeout_error(now, writing=self.upload.pending)
        self.stop(error)
