"""A pool: feeds the ledger with facts and carries out its orders, on the homes of its connections."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context

from .books import Close, Dial, Entry, Fail, Lane, Order, Serve, Waiter
from .capacity import Capacities
from .config import Limits, Origin, PoolConfig
from .connection import Connection
from .dialer import Dialer
from .errors import LLMPoolError, PoolClosed, PoolFull, PoolTimeout, ReadFailed
from .exchange import Exchange
from .head import check
from .home import Home
from .ledger import Ledger
from .portal import after_fork, home_of_caller, portal
from .request import Marks, Request, Whole
from .stats import PoolStats, describe, take_stats

__all__ = ["Pool", "live_pools"]

logger = logging.getLogger("llm_pool.engine")

CLOSE_SECONDS = 2.0  # how long a close waits for the peers' goodbyes

_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def live_pools() -> list[Pool]:
    """Every pool of this process that has not been closed."""
    return [pool for pool in _pools if not pool.closed]


class Pool:
    """Connections to any number of origins, shared by every thread and event loop of the process."""

    def __init__(self, config: PoolConfig, name: str = "default") -> None:
        self.config = config
        self.name = name
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._capacities = Capacities(self.config)
        self._ledger = Ledger(self.config.limits, expects=self._capacities.expected)
        self._dialer = Dialer(self.config)
        self._dials: dict[asyncio.Task[None], Home] = {}
        self._alarm: float | None = None
        self._watchers: list[tuple[Callable[[], bool], Home, asyncio.Future[None]]] = []

    # Calls

    async def open(self, request: Request) -> Exchange:
        """Send a request and wait for the head of its response. From any event loop."""
        home = home_of_caller()
        return await home.arun(self._open, home, request, undo=Exchange.close)

    async def fetch(self, request: Request) -> Whole:
        """Send a request and read its response to the end. From any event loop."""
        home = home_of_caller()
        return await home.arun(self._fetch, home, request)

    def open_sync(self, request: Request) -> Exchange:
        """``open`` for a plain thread."""
        home = portal()
        return home.run(self._open, home, request, undo=Exchange.close)

    def fetch_sync(self, request: Request) -> Whole:
        """``fetch`` for a plain thread."""
        home = portal()
        return home.run(self._fetch, home, request)

    async def _fetch(self, home: Home, request: Request) -> Whole:
        exchange = await self._open(home, request)
        try:
            return await exchange.whole()
        finally:
            exchange.close()

    async def _open(self, home: Home, request: Request) -> Exchange:
        """Send, again if need be, and wait for the head; where the body follows, only send the head."""
        check(request)
        marks = Marks(time.monotonic())
        total = request.timeouts.total
        total_at = None if total is None else home.loop.time() + total
        while True:
            connection = await self._checkout(home, request, marks, total_at)
            exchange = connection.start(request, marks)
            exchange.total_at = total_at
            if request.body is None:
                return exchange
            try:
                await exchange.head()
            except LLMPoolError:
                if not _may_replay(exchange):
                    raise
                marks = marks.restarted()
            except BaseException:
                exchange.close()
                raise
            else:
                return exchange

    # Checkout

    async def _checkout(
        self, home: Home, request: Request, marks: Marks, total_at: float | None
    ) -> Connection:
        """A live connection to the request's origin, by the ledger's rules."""
        began = time.monotonic()
        waiter: Waiter | None = None
        while True:
            with self._lock:
                waiter = self._next_try(waiter, home, request)
                orders = self._ledger.arrive(waiter, began)
            self._carry_out(orders)
            if waiter.entry is None:
                await self._wait(home, waiter, request, total_at)
            assert waiter.entry is not None
            connection: Connection | None = waiter.entry.connection
            if connection is not None and not connection.closed:
                break
        marks.acquired = time.monotonic()
        marks.reused = waiter.reused
        if not waiter.reused:
            marks.dialing = min(connection.dial_seconds, marks.acquired - began)
        return connection

    async def _wait(self, home: Home, waiter: Waiter, request: Request, total_at: float | None) -> None:
        if waiter.error is not None:
            raise self._refusal(waiter.error)
        waiter.future = home.loop.create_future()
        patience = request.timeouts.pool
        if total_at is not None:
            left = total_at - home.loop.time()
            patience = left if patience is None else min(left, patience)
        timer = None if patience is None else home.loop.call_later(patience, self._time_out, waiter, patience)
        try:
            await waiter.future
        except BaseException:
            self._tell(self._ledger.left, waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self, waiter: Waiter, patience: float) -> None:
        if waiter.future.done():
            return
        state = describe(self.stats())
        waiter.future.set_exception(
            PoolTimeout(
                f"pool {self.name!r}: no connection to {waiter.lane.origin} within {patience:g} s ({state})"
            )
        )

    def _refusal(self, error: object) -> LLMPoolError:
        if isinstance(error, LLMPoolError):
            return type(error)(str(error)).with_traceback(None)
        if error == "full":
            return PoolFull(f"pool {self.name!r}: no room in the queue ({describe(self.stats())})")
        return PoolClosed(f"pool {self.name!r} is closed")

    # Facts from connections

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None:
        """A connection's exchange is over."""
        with self._lock:
            orders = self._ledger.released(entry, time.monotonic(), reusable=reusable, hint=hint)
        self._carry_out(orders)

    def resized(self, entry: Entry, capacity: int) -> None:
        """The server changed how many streams a connection may carry."""
        with self._lock:
            self._capacities.learn(entry.lane.origin, capacity)
            orders = self._ledger.resized(entry, capacity, time.monotonic())
        self._carry_out(orders)

    def retired(self, entry: Entry, reason: str) -> None:
        """A connection takes no new calls."""
        self._tell(self._ledger.retire, entry, reason)

    def lost(self, entry: Entry) -> None:
        """A connection has ended."""
        self._tell(self._ledger.died, entry)

    # Orders

    def _tell(self, fact: Callable[..., list[Order]], *args: object) -> None:
        with self._lock:
            orders = fact(*args, time.monotonic())
        self._carry_out(orders)

    def _carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            home = _home_of(order)
            if home.is_here:
                self._perform(order)
                continue
            try:
                home.post(self._perform, order)
            except PoolClosed as error:
                self._tell(self._ledger.lost_home, home, error)
        when = self._ledger.next_alarm
        if when is not None and (self._alarm is None or when < self._alarm):
            self._set_alarm(when)
        if self._watchers:
            self._look()

    def _perform(self, order: Order) -> None:
        match order:
            case Serve(waiter):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_result(None)
            case Fail(waiter, error):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_exception(self._refusal(error))
            case Dial(lane, timeout):
                home = _home_of(order)
                task = home.loop.create_task(self._dial(lane, home, timeout), context=Context())
                self._dials[task] = home
                task.add_done_callback(self._dials.pop)
            case Close(entry, reason):
                connection = entry.connection
                if connection is not None:
                    logger.debug(
                        "pool %r closes a connection to %s: %s", self.name, entry.lane.origin, reason
                    )
                    connection.close()

    async def _dial(self, lane: Lane, home: Home, timeout: float | None) -> None:
        if timeout is None:
            timeout = self.config.timeouts.connect
        began = time.monotonic()
        try:
            connection = await self._dialer.dial(lane.origin, home, self, timeout)
        except asyncio.CancelledError:
            self._tell(self._ledger.dial_failed, lane, PoolClosed(f"pool {self.name!r} is closed"))
            raise
        except LLMPoolError as error:
            logger.debug("pool %r: %s", self.name, error)
            self._tell(self._ledger.dial_failed, lane, error)
            return
        now = time.monotonic()
        connection.dial_seconds = now - began
        with self._lock:
            capacity = self._capacities.of_new(lane.origin, connection.capacity)
            entry, orders = self._ledger.dialed(lane, connection, capacity, now)
            connection.entry = entry
        self._carry_out(orders)
        if connection.closed:
            self.lost(entry)

    # Time

    def _set_alarm(self, when: float) -> None:
        self._alarm = when
        home = home_of_caller() if asyncio._get_running_loop() is not None else portal()
        if home.is_here:
            self._arm(when)
        else:
            home.post(self._arm, when)

    def _arm(self, when: float) -> None:
        asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), self._ring, when)

    def _ring(self, when: float) -> None:
        if self._alarm == when:
            self._alarm = None
        self._tell(self._ledger.tick)

    # Lifecycle

    @property
    def closed(self) -> bool:
        """Whether the pool has ended."""
        return self._ledger.closed

    def stats(self) -> PoolStats:
        """What the pool looks like now. From any thread."""
        with self._lock:
            return take_stats(self._ledger)

    async def prewarm(self, origin: Origin) -> None:
        """Keep ``min_connections`` to ``origin`` open from now on; does not wait for them."""
        home = home_of_caller()
        with self._lock:
            orders = self._ledger.prewarm(self._ledger.lane(origin, home), time.monotonic())
        self._carry_out(orders)

    def resize(self, limits: Limits) -> None:
        """New limits hold from now on. From any thread."""
        self._tell(self._ledger.resize, limits)

    async def adrain(self, timeout: float | None = None) -> bool:
        """Replace every connection as it comes back. True when all had, False after ``timeout`` seconds."""
        home = home_of_caller()
        return await home.arun(self._drain, home, timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """``adrain`` for a plain thread."""
        home = portal()
        return home.run(self._drain, home, timeout)

    async def aclose(self) -> None:
        """End the pool: waiters and calls fail with PoolClosed, connections close. May be called twice."""
        home = home_of_caller()
        await home.arun(self._close, home)

    def close(self) -> None:
        """``aclose`` for a plain thread."""
        if self._ledger.total == 0:
            self._tell(self._ledger.close)
            return
        home = portal()
        home.run(self._close, home)

    async def _drain(self, home: Home, timeout: float | None) -> bool:
        self._tell(self._ledger.drain)
        return await self._until(lambda: self._ledger.outgoing == 0, home, timeout)

    async def _close(self, home: Home) -> None:
        self._tell(self._ledger.close)
        for task, dialing_home in list(self._dials.items()):
            _post_if_alive(dialing_home, task.cancel)
        if await self._until(lambda: self._ledger.total == 0, home, CLOSE_SECONDS):
            return
        for entry in list(self._ledger.entries()):
            if entry.connection is not None:
                _post_if_alive(entry.connection.home, entry.connection.abort)
        await self._until(lambda: self._ledger.total == 0, home, CLOSE_SECONDS)

    async def _until(self, condition: Callable[[], bool], home: Home, timeout: float | None) -> bool:
        future = home.loop.create_future()
        watcher = (condition, home, future)
        self._watchers.append(watcher)
        try:
            self._look()
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return condition()
        finally:
            self._watchers.remove(watcher)
        return True

    def _look(self) -> None:
        for condition, home, future in list(self._watchers):
            if condition():
                _post_if_alive(home, _wake, future)

    def _forget_parent(self) -> None:
        """In the child of a fork: begin anew, and let go of the parent's sockets without a word on them."""
        _left_to_parent.append((self._ledger, self._dials, self._dialer, self._lock))
        for sock in list(self._dialer.sockets):
            sock.close()
        self._begin()

    def _next_try(self, waiter: Waiter | None, home: Home, request: Request) -> Waiter:
        if waiter is None:
            return Waiter(self._ledger.lane(request.origin, home), request.timeouts.connect)
        waiter.entry = waiter.future = None
        waiter.returning = True
        return waiter


def _home_of(order: Order) -> Home:
    lane = order.lane if isinstance(order, Dial) else order[0].lane
    home = lane.home
    assert isinstance(home, Home)
    return home


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


def _post_if_alive(home: Home, function: Callable[..., object], *args: object) -> None:
    try:
        home.post(function, *args)
    except PoolClosed:
        logger.debug("a home has ended before its connections")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@after_fork
def _forget_parent() -> None:
    for pool in list(_pools):
        pool._forget_parent()
