"""Keeps a pool's ledger: enters facts, from any thread, and carries out its orders on the homes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import Context

from .capacity import Capacities
from .config import Origin, PoolConfig
from .connection import Connection
from .dialer.dialer import Dialer
from .errors import ConnectFailed, LLMPoolError, PoolClosed, PoolFull
from .exchange import Exchange
from .homes.alarm import Alarm
from .homes.home import Home
from .ledger.ledger import Ledger
from .ledger.state import Close, Dial, Entry, Fail, Lane, Order, Serve, Waiter
from .stats.news import NEWS_SECONDS, listeners
from .stats.stats import PoolStats, Tally, describe, take_stats
from .stats.utilization import Utilization, warn_of_utilization

__all__ = ["Clerk"]

logger = logging.getLogger("llm_pool.engine")


class Clerk:
    """One for each pool. The ledger is touched under the lock only, and nothing else is done under it."""

    def __init__(self, config: PoolConfig, name: str, dialer: Dialer) -> None:
        self.name = name
        self._capacities = Capacities(config)
        self.ledger = Ledger(config.limits, expects=self._capacities.expected)
        self._connect_timeout = config.timeouts.connect
        self._utilization = Utilization(config.warn_utilization)
        self._lock = threading.Lock()
        self.tally = Tally(self._lock)
        self._dialer = dialer
        self._dials: dict[asyncio.Task[Connection], Lane] = {}  # those that the ledger counts on
        self._alarm = Alarm(lambda: self.enter(self.ledger.tick))
        self._news = Alarm(self._tell)
        self._told: PoolStats | None = None
        self._watchers: list[tuple[Callable[[], bool], Home, asyncio.Future[None]]] = []

    # Facts

    def enter(self, fact: Callable[..., list[Order]], *args: object) -> None:
        """Enter a fact in the ledger (``fact`` is one of its methods) and carry out what it orders."""
        with self._lock:
            orders = fact(*args, time.monotonic())
        self._carry_out(orders)

    def arrive(self, origin: Origin, home: Home, connect_timeout: float | None) -> Waiter:
        """A caller wants a connection. It has ``entry`` or ``error`` set, or is to wait on ``future``."""
        with self._lock:
            waiter = Waiter(self.ledger.lane(origin, home), connect_timeout)
            orders = self.ledger.arrive(waiter, time.monotonic())
        self._carry_out(orders)
        return waiter

    def return_to_queue(self, waiter: Waiter) -> None:
        """The connection that a caller was given has died before it could be used."""
        with self._lock:
            waiter.entry = waiter.future = None
            waiter.returning = True
            orders = self.ledger.arrive(waiter, time.monotonic())
        self._carry_out(orders)

    def prewarm(self, origin: Origin, home: Home) -> None:
        """Keep ``min_connections`` open to ``origin`` on ``home``, and be ready to dial more."""
        self._dialer.prepare(origin)
        with self._lock:
            orders = self.ledger.prewarm(self.ledger.lane(origin, home), time.monotonic())
        self._carry_out(orders)

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None:
        """A connection's exchange is over."""
        with self._lock:
            orders = self.ledger.released(entry, time.monotonic(), reusable=reusable, hint=hint)
        self._carry_out(orders)

    def due(self, entry: Entry) -> None:
        """A connection's exchange is as good as over."""
        self.enter(self.ledger.due, entry)

    def resized(self, entry: Entry, capacity: int) -> None:
        """The server changed how many streams a connection may carry."""
        with self._lock:
            self._capacities.learn(entry.lane.origin, capacity)
            orders = self.ledger.resized(entry, capacity, time.monotonic())
        self._carry_out(orders)

    def retired(self, entry: Entry, reason: str) -> None:
        """A connection takes no new calls."""
        self.enter(self.ledger.retire, entry, reason)

    def lost(self, entry: Entry) -> None:
        """On its home: a connection has ended. Nobody gets it any more; its slot is free a moment later.

        A loop closes the socket right after it has said so, and the other home would not wait for that.
        """
        self.enter(self.ledger.retire, entry, "lost")
        _home(entry.lane).loop.call_soon(self.enter, self.ledger.died, entry, context=Context())

    def dialed(self, entry: Entry, seconds: float) -> None:
        """A connection that dials at its first call has connected, in so many seconds."""
        self.tally.dialed(entry.lane.origin, seconds)
        self._spread_news()

    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None:
        """A connection that dials at its first call could not connect."""
        self.tally.dial_failed(entry.lane.origin, error)
        self._spread_news()

    def cut(self, home: Home) -> None:
        """On a home that ends: close all that lives there, at once."""
        with self._lock:
            self.ledger.home_ends(home)
            dials = [task for task, lane in self._dials.items() if lane.home is home]
            connections = [entry.connection for entry in self.ledger.entries() if entry.lane.home is home]
        for task in dials:
            task.cancel()
        for connection in connections:
            connection.abort()

    def lose(self, home: Home) -> None:
        """A home has ended: forget what lived there."""
        with self._lock:
            if not any(lane.home is home for lane in self.ledger.growth.lanes()):
                return
            for task in [task for task, lane in self._dials.items() if lane.home is home]:
                del self._dials[task]
            error = PoolClosed("the event loop of these connections has ended")
            orders = self.ledger.lost_home(home, error, time.monotonic())
        self._carry_out(orders)

    # Orders

    def _carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            home = _home_of(order)
            if home.is_here:
                self._perform(order)
                continue
            try:
                home.post(self._perform, order)
            except PoolClosed:
                self.lose(home)
        if self._utilization.has_crossed(self.ledger.stock.in_use, self.ledger.limits.max_connections):
            warn_of_utilization(self.name, self.stats())
        when = self.ledger.next_alarm
        if when is not None:
            self._alarm.set(when)
        if self._watchers:
            self._look()
        self._spread_news()

    def _perform(self, order: Order) -> None:
        match order:
            case Serve(waiter):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_result(None)
            case Fail(waiter, error):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_exception(self.refusal(error))
            case Dial(lane, timeout):
                self._dial(lane, timeout)
            case Close(entry, reason):
                connection = entry.connection
                if connection is not None:
                    logger.debug(
                        "pool %r closes a connection to %s: %s", self.name, entry.lane.origin, reason
                    )
                    connection.close()

    def refusal(self, error: object) -> LLMPoolError:
        """What the waiter is told, given what the ledger says. An exception of its own for each."""
        if isinstance(error, LLMPoolError):
            own = type(error)(str(error))
            own.__cause__ = error.__cause__
            return own
        if error == "full":
            self.tally.count("refused")
            most = self.ledger.limits.max_waiting
            return PoolFull(
                f"pool {self.name!r}: the queue is full, at max_waiting {most} ({describe(self.stats())})"
            )
        return PoolClosed(f"pool {self.name!r} is closed")

    # Dials

    def _dial(self, lane: Lane, timeout: float | None) -> None:
        home = _home(lane)
        if home.shut:
            return  # the ledger learns of it when the home has ended
        task = home.loop.create_task(self._connect(lane, home, timeout), context=Context())
        task.add_done_callback(self._dial_ended, context=Context())
        with self._lock:
            self._dials[task] = lane
            too_late = self.ledger.closed
        if too_late:
            task.cancel()

    async def _connect(self, lane: Lane, home: Home, timeout: float | None) -> Connection:
        if timeout is None:
            timeout = self._connect_timeout
        return await self._dialer.dial(lane.origin, home, self, timeout)

    def _dial_ended(self, task: asyncio.Task[Connection]) -> None:
        """Here and not in the task: one that is cancelled before its first step never runs."""
        error = _error_of(task)
        with self._lock:
            lane = self._dials.pop(task, None)
        if lane is None:
            return  # cut off with its home, and accounted for
        if error is not None:
            logger.debug("pool %r: %s", self.name, error)
            if not task.cancelled():
                self.tally.dial_failed(lane.origin, error)
            self.enter(self.ledger.dial_failed, lane, error)
            return
        connection = task.result()
        if connection.dial_seconds is not None:
            self.tally.dialed(lane.origin, connection.dial_seconds)
        with self._lock:
            capacity = self._capacities.of_new(lane.origin, connection)
            entry, orders = self.ledger.dialed(lane, connection, capacity, time.monotonic())
            connection.entry = entry
        self._carry_out(orders)
        if connection.closed:
            self.lost(entry)

    def call_over(self, exchange: Exchange) -> None:
        """A call that had a connection has ended: it is complete, has failed, or was left."""
        whole = exchange.complete or exchange.satisfied
        self.tally.call_over(exchange.marks, whole=whole)
        if not whole and exchange.error is None:
            self.tally.count("cancelled")
        self._spread_news()

    def leak_suspected(self) -> None:
        """A response has been held for too long."""
        self.tally.count("leaks_suspected")
        self._spread_news()

    # The whole

    def stats(self) -> PoolStats:
        """What the pool looks like now."""
        with self._lock:
            return take_stats(self.ledger, self.tally, time.monotonic())

    def _spread_news(self) -> None:
        if listeners:
            self._news.set(time.monotonic() + NEWS_SECONDS)

    def _tell(self) -> None:
        with self._lock:
            before, self._told = self._told, take_stats(self.ledger, self.tally, time.monotonic())
            now = self._told
        listeners.tell(self.name, now, before)

    def close(self) -> None:
        """Waiters and calls fail, dials are called off, connections begin to close: see ``until``."""
        self.enter(self.ledger.close)
        with self._lock:
            dials = list(self._dials.items())
        for task, lane in dials:
            _post_if_alive(_home(lane), task.cancel)

    def abort(self) -> None:
        """Cut every connection."""
        with self._lock:
            connections = [entry.connection for entry in self.ledger.entries()]
        for connection in connections:
            _post_if_alive(connection.home, connection.abort)

    async def until(self, condition: Callable[[], bool], home: Home, timeout: float | None) -> bool:
        """On ``home``: whether the ledger fulfils ``condition`` now, or within ``timeout`` seconds."""
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

    def disown(self) -> None:
        """In the child of a fork: let go of the parent's sockets without a word on them."""
        self._dialer.disown()


def _home_of(order: Order) -> Home:
    return _home(order.lane if isinstance(order, Dial) else order[0].lane)


def _home(lane: Lane) -> Home:
    assert isinstance(lane.home, Home)
    return lane.home


def _error_of(task: asyncio.Task[Connection]) -> LLMPoolError | None:
    if task.cancelled():
        return PoolClosed("the dial was called off")
    error = task.exception()
    if error is None or isinstance(error, LLMPoolError):
        return error
    logger.error("a dial failed unexpectedly", exc_info=error)
    unheard_of = ConnectFailed(f"no connection could be made: {error!r}")
    unheard_of.__cause__ = error
    return unheard_of


def _post_if_alive(home: Home, function: Callable[..., object], *args: object) -> None:
    try:
        home.post(function, *args)
    except PoolClosed:
        logger.debug("a home has ended before its connections")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
