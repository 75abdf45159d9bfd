"""A pool of connections: the calls through it, and its life from first use to close."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from traceback import StackSummary

from llm_pool.exceptions import LLMPoolError, PoolClosed, ReadFailed

from .checkout import checkout
from .config import Origin, PoolConfig
from .coordinator import Coordinator
from .dialer.dialer import Dialer
from .exchange import Exchange
from .head import validate
from .leaks import LeakDetector
from .ledger.state import Waiter
from .loops.host_loop import HostLoop
from .loops.portal import (
    after_fork,
    after_loop_ended,
    before_loop_ends,
    host_loop_of_caller,
    left_to_parent,
    portal,
)
from .request import Request, WholeResponse
from .stats.inventory import ConnectionInfo
from .stats.stats import PoolStats

__all__ = ["Pool", "live_pools"]

CLOSE_SECONDS = 2.0  # how long a close waits for the connections to end

_pools: weakref.WeakValueDictionary[int, Pool] = weakref.WeakValueDictionary()


def live_pools() -> list[Pool]:
    """Every pool of this process that has not been closed."""
    return [pool for pool in _all_pools() if not pool.closed]


class Pool:
    """Connections to any number of origins, shared by every thread and event loop of the process.

    ``config``  limits, timeouts, DNS, TLS and proxy
    ``name``    appears in errors and logs
    ``dialer``  makes the object that opens the connections; ``backends`` has those for other libraries
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

    async def open(self, request: Request) -> Exchange:
        """Send a request and wait for the head of its response. From any event loop.

        Read the exchange to its end or close it. Raises an LLMPoolError; so do the next three methods.
        """
        host_loop = host_loop_of_caller()
        _start(request)
        return await host_loop.arun(
            self._open, host_loop, request, self._leaks.caller_stack(), undo=Exchange.close
        )

    async def fetch(self, request: Request) -> WholeResponse:
        """Send a request and read its response to the end. From any event loop."""
        host_loop = host_loop_of_caller()
        _start(request)
        return await host_loop.arun(self._fetch, host_loop, request)

    def open_sync(self, request: Request) -> Exchange:
        """``open`` for a thread without an event loop, which it blocks."""
        host_loop = portal()
        _start(request)
        return host_loop.run(self._open, host_loop, request, self._leaks.caller_stack(), undo=Exchange.close)

    def fetch_sync(self, request: Request) -> WholeResponse:
        """``fetch`` for a thread without an event loop, which it blocks."""
        host_loop = portal()
        _start(request)
        return host_loop.run(self._fetch, host_loop, request)

    async def _fetch(self, host_loop: HostLoop, request: Request) -> WholeResponse:
        exchange = await self._send(host_loop, request)
        try:
            return await exchange.read_all()
        finally:
            exchange.close()

    async def _open(self, host_loop: HostLoop, request: Request, stack: StackSummary | None) -> Exchange:
        with nullcontext() if request.scope is None else request.scope.on(host_loop):
            exchange = await self._send(host_loop, request)
        self._leaks.watch(exchange, stack)
        return exchange

    async def _send(self, host_loop: HostLoop, request: Request) -> Exchange:
        """Send the request, and again if ``_may_replay`` allows it; wait for the head of the response.

        If the body follows piece by piece, only send the head. Every call passes here once: direct or through
        httpx, sync or async.
        """
        marks, total = request.marks, request.timeouts.total
        validate(request)
        total_at = None if total is None else host_loop.loop.time() + total
        waiter: Waiter | None = None
        while True:
            connection, waiter = await checkout(
                self._coordinator, host_loop, request, total_at=total_at, returning=waiter
            )
            exchange = connection.start(request)
            exchange.total_at = total_at
            if request.body is None and exchange.error is None:
                exchange.call_at_end(self._coordinator.call_ended)
                return exchange
            try:
                await exchange.head()
            except LLMPoolError:
                if not _may_replay(exchange):
                    exchange.call_at_end(self._coordinator.call_ended)
                    raise
                self._coordinator.tally.count("replays")
                marks.restart()
            except BaseException:
                exchange.call_at_end(self._coordinator.call_ended)
                exchange.close()
                raise
            else:
                exchange.call_at_end(self._coordinator.call_ended)
                return exchange

    # State and lifecycle

    @property
    def closed(self) -> bool:
        """Whether the pool has been closed."""
        return self._coordinator.ledger.closed

    def stats(self) -> PoolStats:
        """The pool's state now, and its counters. From any thread."""
        return self._coordinator.stats()

    def connections(self) -> list[ConnectionInfo]:
        """Each connection as it is now, oldest first. From any thread; O(connections)."""
        return self._coordinator.connections()

    def count_answer(
        self, input_tokens: int = 0, output_tokens: int = 0, first_token: float | None = None
    ) -> None:
        """Add an answer's tokens to ``stats``, and the seconds to its first token. From any thread."""
        self._coordinator.tally.answer_read(input_tokens, output_tokens, first_token)

    async def prewarm(self, origin: Origin) -> None:
        """Keep ``min_connections`` to ``origin`` open from now on, and load the TLS context.

        Does not wait for the dials.
        """
        self._coordinator.prewarm(origin, host_loop_of_caller())

    async def adrain(self, timeout: float | None = None) -> bool:
        """Replace every connection when its calls have ended. Idle ones are closed now.

        True when all have closed, False after ``timeout`` seconds; the draining then goes on.
        """
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.drain)  # not within ``arun``: a cancelled caller has drained too
        return await host_loop.arun(self._wait_until_drained, host_loop, timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """``adrain`` for a thread without an event loop, which it blocks."""
        host_loop = portal()
        host_loop.call(self._coordinator.drain)
        return host_loop.run(self._wait_until_drained, host_loop, timeout)

    async def aclose(self) -> None:
        """Close the pool: waiters and calls fail with PoolClosed, connections close. May be called twice."""
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.close)
        await host_loop.arun(self._wait_until_closed, host_loop)

    def close(self) -> None:
        """``aclose`` for a thread without an event loop. On the server loop it does not wait for the end."""
        ledger = self._coordinator.ledger
        if not ledger.total and not ledger.waiting:
            self._coordinator.close()  # with nothing open, an interrupt leaves nothing half done
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
        """In the child of a fork: start with no connection; a closed pool stays closed."""
        parents_coordinator = self._coordinator
        self._begin()
        left_to_parent.append(parents_coordinator)
        parents_coordinator.forget_parent()
        if parents_coordinator.ledger.closed:
            # Not the coordinator's ``close``: that could start a thread.
            self._coordinator.ledger.close(time.monotonic())


def _start(request: Request) -> None:
    """Set the call's start, on the caller's thread: the hand-over to the host loop is part of the call."""
    marks = request.marks
    if marks.started:
        marks.reset()
    marks.started, marks.sent = time.monotonic(), len(request.body or b"")


def _may_replay(exchange: Exchange) -> bool:
    """Whether to send the request again after the error of ``exchange``.

    On a reused connection: if nothing was sent, or the request has an idempotency key. On any connection:
    once, if the server reports that it did not process the request (RFC 9113, section 8.7). By RFC 9110,
    section 9.2.2, a request that may have been processed is not repeated unless that is known to be harmless.
    """
    if exchange.answered or isinstance(exchange.error, PoolClosed):
        return False
    if exchange.refused and not exchange.marks.replays:
        return True
    if not exchange.marks.reused:
        return False
    return exchange.unsent or (exchange.request.replayable and isinstance(exchange.error, ReadFailed))


def _all_pools() -> list[Pool]:
    # ``valuerefs`` copies in one step: other threads may make pools meanwhile.
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
