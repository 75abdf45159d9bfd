"""A pool: the calls that go through it, and its life from first use to close."""

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
from .head import check
from .leaks import LeakDetector
from .ledger.state import Waiter
from .loops.host_loop import HostLoop
from .loops.portal import after_fork, after_loop_ended, before_loop_ends, host_loop_of_caller, portal
from .request import Request, WholeResponse
from .stats.inventory import ConnectionInfo
from .stats.stats import PoolStats

__all__ = ["Pool", "live_pools"]

CLOSE_SECONDS = 2.0  # how long a close waits for the connections to end

_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's
_pools: weakref.WeakValueDictionary[int, Pool] = weakref.WeakValueDictionary()


def live_pools() -> list[Pool]:
    """Every pool of this process that has not been closed."""
    return [pool for pool in _all_pools() if not pool.closed]


class Pool:
    """Connections to any number of origins, shared by every thread and event loop of the process.

    ``dialer`` makes the object that opens the connections, and so decides of what kind they are.
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
        """Send a request and wait for the head of its response. From any event loop."""
        host_loop = host_loop_of_caller()
        _start(request)
        return await host_loop.arun(self._open, host_loop, request, self._leaks.stack(), undo=Exchange.close)

    async def fetch(self, request: Request) -> WholeResponse:
        """Send a request and read its response to the end. From any event loop."""
        host_loop = host_loop_of_caller()
        _start(request)
        return await host_loop.arun(self._fetch, host_loop, request)

    def open_sync(self, request: Request) -> Exchange:
        """``open`` for a plain thread."""
        host_loop = portal()
        _start(request)
        return host_loop.run(self._open, host_loop, request, self._leaks.stack(), undo=Exchange.close)

    def fetch_sync(self, request: Request) -> WholeResponse:
        """``fetch`` for a plain thread."""
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
        """Send, again if need be, and wait for the head; if the body follows, only send the head.

        Every call of every kind comes through here, once: direct or through httpx, sync or async.
        """
        marks, total = request.marks, request.timeouts.total
        check(request)
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

    # Life

    @property
    def closed(self) -> bool:
        """Whether the pool has been closed."""
        return self._coordinator.ledger.closed

    def stats(self) -> PoolStats:
        """The pool's state now, and its counters. From any thread."""
        return self._coordinator.stats()

    def connections(self) -> list[ConnectionInfo]:
        """Each connection as it is now, the oldest first. From any thread; O(connections)."""
        return self._coordinator.connections()

    def count_answer(
        self, input_tokens: int = 0, output_tokens: int = 0, first_token: float | None = None
    ) -> None:
        """Add what the reader of an answer found to ``stats``; ``first_token`` in seconds. Any thread."""
        self._coordinator.tally.answer_read(input_tokens, output_tokens, first_token)

    async def prewarm(self, origin: Origin) -> None:
        """Keep ``min_connections`` to ``origin`` open from now on, and prepare for more. Does not wait."""
        self._coordinator.prewarm(origin, host_loop_of_caller())

    async def adrain(self, timeout: float | None = None) -> bool:
        """Replace every connection as it comes back. True when all are, False after ``timeout`` seconds."""
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.drain)  # even if the caller is cancelled now
        return await host_loop.arun(self._wait_until_drained, host_loop, timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """``adrain`` for a plain thread."""
        host_loop = portal()
        host_loop.call(self._coordinator.drain)
        return host_loop.run(self._wait_until_drained, host_loop, timeout)

    async def aclose(self) -> None:
        """End the pool: waiters and calls fail with PoolClosed, connections close. May be called twice."""
        host_loop = host_loop_of_caller()
        host_loop.call(self._coordinator.close)
        await host_loop.arun(self._wait_until_closed, host_loop)

    def close(self) -> None:
        """``aclose`` for a plain thread. On the server loop, which has to go on, it does not wait."""
        ledger = self._coordinator.ledger
        if not ledger.total and not ledger.waiting:
            self._coordinator.close()  # nothing that an interrupt could leave half-done
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
        """In the child of a fork: begin anew, or stay closed."""
        parents = self._coordinator
        self._begin()
        _left_to_parent.append(parents)
        parents.forget_parent()
        if parents.ledger.closed:
            self._coordinator.ledger.close(time.monotonic())  # and no thread is started here


def _start(request: Request) -> None:
    """In the caller's thread: the way to the host loop is part of the call."""
    request.marks.start(time.monotonic(), len(request.body or b""))


def _may_replay(exchange: Exchange) -> bool:
    """Whether to send the request again.

    On a connection that had served before: if nothing was sent, or the request has an idempotency key. On
    any: once, if the server says that it did not process the request (RFC 9113, section 8.7). RFC 9110,
    section 9.2.2: a client must not repeat a request by itself unless it knows that it is harmless.
    """
    if exchange.answered or isinstance(exchange.error, PoolClosed):
        return False
    if exchange.refused and not exchange.marks.replays:
        return True
    if not exchange.marks.reused:
        return False
    return exchange.unsent or (exchange.request.replayable and isinstance(exchange.error, ReadFailed))


def _all_pools() -> list[Pool]:
    # ``valuerefs`` copies in one step, so that other threads may make pools meanwhile.
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
