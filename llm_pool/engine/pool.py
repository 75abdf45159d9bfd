"""A pool of connections: sends requests, reports the pool's state, drains and closes the pool."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from traceback import StackSummary
from typing import Any

from llm_pool.exceptions import LLMPoolError, PoolClosed, ReadFailed

from .checkout import connection_at_once, wait_for_connection
from .clock import monotonic
from .config import Origin, PoolConfig
from .coordinator import Coordinator
from .dialer.dialer import Dialer
from .exchange import Event, Exchange
from .leaks import LeakDetector
from .loops.host_loop import HostLoop
from .loops.portal import after_loop_ended, before_loop_ends, host_loop_of_caller, portal, run_on_portal
from .loops.process import after_fork, left_to_parent, notice_fork
from .request import Request, WholeResponse
from .stats.inventory import ConnectionInfo
from .stats.stats import PoolStats

__all__ = ["Pool", "live_pools"]

CLOSE_SECONDS = 2.0  # how long a close waits before it aborts the connections, and again after that

_pools: weakref.WeakValueDictionary[int, Pool] = weakref.WeakValueDictionary()


def live_pools() -> list[Pool]:
    """Return the pools of this process that have not been closed."""
    return [pool for pool in _all_pools() if not pool.closed]


class Pool:
    """Connections to any number of origins, shared by every thread and event loop of the process.

    ``config``  limits, timeouts, DNS, TLS and proxy
    ``name``    appears in errors and logs
    ``dialer``  is called with ``config`` and returns the object that opens connections; ``backends`` has
                dialers for other HTTP libraries
    """

    def __init__(
        self,
        config: PoolConfig,
        name: str = "default",
        dialer: Callable[[PoolConfig], Dialer] = Dialer,
    ) -> None:
        self.config = config
        self.name = name
        self._make_dialer = dialer
        self._begin()
        _pools[id(self)] = self

    def _begin(self) -> None:
        self._coordinator = Coordinator(self.config, self.name, self._make_dialer(self.config))
        self._leaks = LeakDetector(self._coordinator, self.config.leak_threshold)

    # Calls

    def open(self, request: Request) -> Coroutine[Any, Any, Exchange]:
        """Send a request, and return its exchange when the head of the response has arrived.

        If ``request.body`` is None, return when the head of the request has been sent; the caller then writes
        the body. Read the exchange to its end, or close it. Raises an LLMPoolError if the call fails. Can be
        called on any event loop.
        """
        host_loop = host_loop_of_caller()
        _start(request)
        stack, total = self._leaks.caller_stack(), request.timeouts.total
        return host_loop.arun(self._open, host_loop, request, stack, undo=Exchange.close, total=total)

    def fetch(self, request: Request) -> Coroutine[Any, Any, WholeResponse]:
        """Send a request, and return its whole response. Can be called on any event loop.

        Raises an LLMPoolError if the call fails.
        """
        host_loop = host_loop_of_caller()
        _start(request)
        return host_loop.arun(self._fetch, host_loop, request, total=request.timeouts.total)

    def open_sync(self, request: Request) -> Exchange:
        """Do the same as ``open`` for a thread without an event loop. Blocks the thread."""
        _start(request)
        stack, total = self._leaks.caller_stack(), request.timeouts.total
        return run_on_portal(self._open, request, stack, undo=Exchange.close, total=total)

    def fetch_sync(self, request: Request) -> WholeResponse:
        """Do the same as ``fetch`` for a thread without an event loop. Blocks the thread."""
        _start(request)
        return run_on_portal(self._fetch, request, total=request.timeouts.total)

    async def _fetch(self, host_loop: HostLoop, request: Request) -> WholeResponse:
        exchange = await self._send(host_loop, request, Event.END)
        try:
            return exchange.whole() or await exchange.read_all(self.config.limits.max_answer_bytes)
        except BaseException:
            exchange.close()
            raise

    async def _open(self, host_loop: HostLoop, request: Request, stack: StackSummary | None) -> Exchange:
        with nullcontext() if request.scope is None else request.scope.on(host_loop):
            exchange = await self._send(host_loop, request, Event.HEAD)
        self._leaks.watch(exchange, stack)
        return exchange

    async def _send(self, host_loop: HostLoop, request: Request, event: Event) -> Exchange:
        """Send a request, and return its exchange when ``event`` has come: the response's head or end.

        If ``request.body`` is None, the caller writes the body: return when the head of the request has been
        sent. If the exchange fails and ``_may_replay`` allows a replay, send the request again. Raises an
        LLMPoolError if the call fails. Every call runs this method once: direct or through httpx, sync or
        async.
        """
        coordinator, timeouts = self._coordinator, request.timeouts
        total_at = None if timeouts.total is None else host_loop.loop.time() + timeouts.total
        waiter = coordinator.arrive(request.origin, host_loop, timeouts.connect)
        while True:
            connection = connection_at_once(coordinator, waiter, request) or await wait_for_connection(
                coordinator, host_loop, waiter, request, total_at=total_at
            )
            exchange = connection.start(request)
            exchange.total_at = total_at
            try:
                if request.body is not None or exchange.error is not None:
                    while (future := exchange.pending(event)) is not None:
                        await future
            except LLMPoolError:
                if not _may_replay(exchange):
                    exchange.call_at_end(coordinator.call_ended)
                    raise
                coordinator.tally.count("replays")
                request.marks.restart()
                coordinator.return_to_queue(waiter)
            except BaseException:
                exchange.call_at_end(coordinator.call_ended)
                exchange.close()
                raise
            else:
                exchange.call_at_end(coordinator.call_ended)
                return exchange

    # State and lifecycle

    @property
    def closed(self) -> bool:
        """Whether the pool has been closed."""
        return self._coordinator.ledger.closed

    def stats(self) -> PoolStats:
        """Return the pool's present state and its counters. Can be called from any thread."""
        notice_fork()
        return self._coordinator.stats()

    def connections(self) -> list[ConnectionInfo]:
        """Return the present state of each connection, the oldest first. Can be called from any thread.

        Costs O(connections).
        """
        notice_fork()
        return self._coordinator.connections()

    def count_answer(
        self, input_tokens: int = 0, output_tokens: int = 0, first_token: float | None = None
    ) -> None:
        """Add an answer's tokens, and its time to first token, to ``stats``. Can be called from any thread.

        ``first_token``: seconds from the start of the call to the first text; None if not measured.
        """
        self._coordinator.tally.answer_read(input_tokens, output_tokens, first_token)

    async def prewarm(self, origin: Origin) -> None:
        """Keep ``min_connections`` to ``origin`` open on the caller's host loop from now on.

        For an https origin, also start to build the TLS context. Returns before the connections are open.
        """
        self._coordinator.prewarm(origin, host_loop_of_caller())

    async def adrain(self, timeout: float | None = None) -> bool:
        """Close every open connection: idle ones now, the others when their calls have ended.

        New calls get new connections. Returns True when the connections that were open at the start have
        closed. Returns False if some are still open after ``timeout`` seconds; these close when their calls
        have ended. If ``timeout`` is None, the wait has no limit.
        """
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.drain)  # begins even if the caller is cancelled
        return await host_loop.arun(self._wait_until_drained, host_loop, timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """Do the same as ``adrain`` for a thread without an event loop. Blocks the thread."""
        host_loop = portal()
        host_loop.call(self._coordinator.drain)
        return host_loop.run(self._wait_until_drained, host_loop, timeout)

    async def aclose(self) -> None:
        """Close the pool and its connections. Waiting calls and calls in progress fail with PoolClosed.

        Waits for the connections to close. Those that are still open after ``CLOSE_SECONDS`` are aborted. Can
        be called more than once.
        """
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.close)
        await host_loop.arun(self._wait_until_closed, host_loop)

    def close(self) -> None:
        """Do the same as ``aclose`` for a thread without an event loop. Blocks the thread.

        On the server loop, return at once, before the connections have closed.
        """
        notice_fork()
        ledger = self._coordinator.ledger
        if not ledger.total and not ledger.waiting:
            self._coordinator.close()  # no connection is open, so an interrupt leaves none half closed
            return
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.close)
        if not host_loop.is_current:
            host_loop.run(self._wait_until_closed, host_loop)

    async def _wait_until_drained(self, host_loop: HostLoop, timeout: float | None) -> bool:
        coordinator = self._coordinator
        return await coordinator.until(lambda: coordinator.ledger.draining == 0, host_loop, timeout)

    async def _wait_until_closed(self, host_loop: HostLoop) -> None:
        coordinator, ledger = self._coordinator, self._coordinator.ledger
        if await coordinator.until(lambda: ledger.total == 0, host_loop, CLOSE_SECONDS):
            return
        coordinator.abort()
        await coordinator.until(lambda: ledger.total == 0, host_loop, CLOSE_SECONDS)

    def _forget_parent(self) -> None:
        """In the child of a fork: start again without connections. A pool that was closed stays closed."""
        parents_coordinator = self._coordinator
        self._begin()
        left_to_parent.append(parents_coordinator)
        parents_coordinator.forget_parent()
        if parents_coordinator.ledger.closed:
            # Not the coordinator's ``close``: that could start a thread.
            self._coordinator.ledger.close(monotonic())


def _start(request: Request) -> None:
    """Set the marks ``started`` and ``sent``. Reset the other marks if they were used before.

    Runs on the caller's thread, so that the call's time includes the wait for the host loop.
    """
    marks = request.marks
    if marks.started:
        marks.reset()
    marks.started, marks.sent = monotonic(), len(request.body or b"")


def _may_replay(exchange: Exchange) -> bool:
    """Return whether to send the request again after ``exchange`` has failed.

    False if a part of the response has arrived, or if the pool was closed. Otherwise True in these cases:

    - The request is known not to have been processed (RFC 9113, section 8.7), and was not replayed before.
    - The connection was reused, and no byte of the request was sent.
    - The connection was reused and was lost (ReadFailed), and the request is ``replayable``: it has its whole
      body and an ``Idempotency-Key``.

    For all methods, the rule is that of RFC 9110, section 9.2.2, for POST: do not repeat a request that the
    server can have processed, unless repeating it is known to be harmless.
    """
    if exchange.answered or isinstance(exchange.error, PoolClosed):
        return False
    if exchange.refused and not exchange.marks.replays:
        return True
    if not exchange.marks.reused:
        return False
    return exchange.unsent or (exchange.request.replayable and isinstance(exchange.error, ReadFailed))


def _all_pools() -> list[Pool]:
    # ``valuerefs`` copies in one step, so that other threads can add pools at the same time.
    return [pool for ref in _pools.valuerefs() if (pool := ref()) is not None]


@before_loop_ends
def _abort_on(host_loop: HostLoop) -> None:
    for pool in _all_pools():
        pool._coordinator.abort_on(host_loop)


@after_loop_ended
def _forget_loop(host_loop: HostLoop) -> None:
    for pool in _all_pools():
        pool._coordinator.forget_loop(host_loop)


@after_fork
def _forget_parent() -> None:
    for pool in _all_pools():
        pool._forget_parent()
