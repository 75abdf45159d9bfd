"""A pool: the calls that go through it, and its life from first use to close."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from traceback import StackSummary

from .checkout import checkout
from .clerk import Clerk
from .config import Limits, Origin, PoolConfig
from .dialer.dialer import Dialer
from .errors import LLMPoolError, PoolClosed, ReadFailed
from .exchange import Exchange
from .head import check
from .homes.home import Home
from .homes.portal import after_fork, after_home_ended, before_home_ends, home_of_caller, portal
from .leaks import LeakDetector
from .ledger.state import Waiter
from .request import Marks, Request, WholeResponse, for_whom
from .stats.inventory import ConnectionInfo, list_connections
from .stats.stats import PoolStats

__all__ = ["Pool", "live_pools"]

CLOSE_SECONDS = 2.0  # how long a close waits for the peers' goodbyes

_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's
_pools: weakref.WeakValueDictionary[int, Pool] = weakref.WeakValueDictionary()


def live_pools() -> list[Pool]:
    """Every pool of this process that has not been closed."""
    return [pool for pool in _all_pools() if not pool.closed]


class Pool:
    """Connections to any number of origins, shared by every thread and event loop of the process.

    ``dialer`` makes what opens the connections, and so decides of what kind they are.
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
        self._clerk = Clerk(self.config, self.name, self._make_dialer(self.config))
        self._leaks = LeakDetector(self._clerk, self.config.leak_threshold)

    # Calls

    async def open(self, request: Request) -> Exchange:
        """Send a request and wait for the head of its response. From any event loop."""
        home = home_of_caller()
        marks, stack = _started(request), self._leaks.stack()
        return await home.arun(self._open_watched, home, request, marks, stack, undo=Exchange.close)

    async def fetch(self, request: Request) -> WholeResponse:
        """Send a request and read its response to the end. From any event loop."""
        home = home_of_caller()
        return await home.arun(self._fetch, home, request, _started(request))

    def open_sync(self, request: Request) -> Exchange:
        """``open`` for a plain thread."""
        home = portal()
        marks, stack = _started(request), self._leaks.stack()
        return home.run(self._open_watched, home, request, marks, stack, undo=Exchange.close)

    def fetch_sync(self, request: Request) -> WholeResponse:
        """``fetch`` for a plain thread."""
        home = portal()
        return home.run(self._fetch, home, request, _started(request))

    async def _fetch(self, home: Home, request: Request, marks: Marks) -> WholeResponse:
        exchange = await self._open(home, request, marks)
        try:
            return await exchange.whole()
        finally:
            exchange.close()

    async def _open_watched(
        self, home: Home, request: Request, marks: Marks, stack: StackSummary | None
    ) -> Exchange:
        with nullcontext() if request.scope is None else request.scope.on(home):
            exchange = await self._open(home, request, marks)
        self._leaks.watch(exchange, stack)
        return exchange

    async def _open(self, home: Home, request: Request, marks: Marks) -> Exchange:
        """Send, again if need be, and wait for the head; where the body follows, only send the head."""
        check(request)
        total = request.timeouts.total
        total_at = None if total is None else home.loop.time() + total
        waiter: Waiter | None = None
        while True:
            connection, waiter = await checkout(
                self._clerk, home, request, marks, total_at=total_at, returning=waiter
            )
            exchange = connection.start(request, marks)
            exchange.total_at = total_at
            if request.body is None and exchange.error is None:
                exchange.report_to(self._clerk.call_over)
                return exchange
            try:
                await exchange.head()
            except LLMPoolError:
                if not _may_replay(exchange):
                    exchange.report_to(self._clerk.call_over)
                    raise
                self._clerk.tally.count("replays")
                marks.restart()
            except BaseException:
                exchange.report_to(self._clerk.call_over)
                exchange.close()
                raise
            else:
                exchange.report_to(self._clerk.call_over)
                return exchange

    # Life

    @property
    def closed(self) -> bool:
        """Whether the pool has ended."""
        return self._clerk.ledger.closed

    def stats(self) -> PoolStats:
        """What the pool looks like now. From any thread."""
        return self._clerk.stats()

    def connections(self) -> list[ConnectionInfo]:
        """Each connection as it is now, the oldest first. From any thread; costs what there is."""
        with self._clerk.tally.lock:  # the books'
            return list_connections(self._clerk.ledger, time.monotonic())

    def count_answer(
        self, input_tokens: int = 0, output_tokens: int = 0, first_token: float | None = None
    ) -> None:
        """For ``stats``: what the reader of an answer found in it; ``first_token`` in seconds. Any thread."""
        self._clerk.tally.answer_read(input_tokens, output_tokens, first_token)

    async def prewarm(self, origin: Origin) -> None:
        """Keep ``min_connections`` to ``origin`` open from now on, and be ready for more. Does not wait."""
        self._clerk.prewarm(origin, home_of_caller())

    def resize(self, limits: Limits) -> None:
        """New limits hold from now on. From any thread."""
        self._clerk.enter(self._clerk.ledger.resize, limits)

    async def adrain(self, timeout: float | None = None) -> bool:
        """Replace every connection as it comes back. True when all had, False after ``timeout`` seconds."""
        self._clerk.enter(self._clerk.ledger.drain)
        home = home_of_caller()
        return await home.arun(self._see_drained, home, timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """``adrain`` for a plain thread."""
        self._clerk.enter(self._clerk.ledger.drain)
        home = portal()
        return home.run(self._see_drained, home, timeout)

    async def aclose(self) -> None:
        """End the pool: waiters and calls fail with PoolClosed, connections close. May be called twice."""
        self._clerk.close()
        home = home_of_caller()
        await home.arun(self._see_closed, home)

    def close(self) -> None:
        """``aclose`` for a plain thread. On the server loop, which has to go on, it does not wait."""
        self._clerk.close()
        home = home_of_caller()
        if self._clerk.ledger.total and not home.is_here:
            home.run(self._see_closed, home)

    async def _see_drained(self, home: Home, timeout: float | None) -> bool:
        ledger = self._clerk.ledger
        return await self._clerk.until(lambda: ledger.outgoing == 0, home, timeout)

    async def _see_closed(self, home: Home) -> None:
        ledger = self._clerk.ledger
        if await self._clerk.until(lambda: ledger.total == 0, home, CLOSE_SECONDS):
            return
        self._clerk.abort()
        await self._clerk.until(lambda: ledger.total == 0, home, CLOSE_SECONDS)

    def _forget_parent(self) -> None:
        """In the child of a fork: begin anew, but for a pool that has ended."""
        parents = self._clerk
        self._begin()
        _left_to_parent.append(parents)
        parents.disown()
        if parents.ledger.closed:
            self._clerk.ledger.close(time.monotonic())  # by itself: here no thread is to start


def _started(request: Request) -> Marks:
    """In the caller: from now on its call takes time."""
    marks = Marks(time.monotonic(), sent=len(request.body or b""))
    principal = for_whom.get()
    if principal is not None:
        principal.marks = marks
    return marks


def _may_replay(exchange: Exchange) -> bool:
    """On a connection that had served before, and either nothing was sent or the caller allows a second time;
    and once where the server says that it did nothing (RFC 9113, section 8.7).

    RFC 9110, section 9.2.2: a client must not repeat a request by itself unless it knows that it is harmless.
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


@before_home_ends
def _cut_home(home: Home) -> None:
    for pool in _all_pools():
        pool._clerk.cut(home)


@after_home_ended
def _lose_home(home: Home) -> None:
    for pool in _all_pools():
        pool._clerk.lose(home)


@after_fork
def _forget_parent() -> None:
    for pool in _all_pools():
        pool._forget_parent()
