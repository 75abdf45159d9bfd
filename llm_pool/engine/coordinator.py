"""Connects a pool's ledger to the event loops: enters facts in it, and carries out its orders."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from math import inf

from llm_pool.exceptions import ConnectFailed, LLMPoolError, PoolClosed, PoolFull, copy_of

from .capacity import Capacities
from .config import Origin, PoolConfig
from .connection import Connection
from .dialer.dialer import Dialer
from .exchange import Exchange
from .ledger.ledger import Ledger
from .ledger.state import Close, Dial, Entry, Fail, Lane, Order, Serve, Waiter
from .loops.alarm import Alarm
from .loops.host_loop import ENDED, HostLoop, wake
from .loops.threads import hold
from .stats.inventory import ConnectionInfo, list_connections
from .stats.listeners import STATS_INTERVAL, stats_listeners
from .stats.stats import PoolStats, Tally, describe, take_stats
from .stats.utilization import Utilization, warn_of_utilization

__all__ = ["Coordinator"]

logger = logging.getLogger("llm_pool.engine")


class Coordinator:
    """Adds to a pool's ledger, which is pure, a lock, a clock, dials, and calls to the host loops.

    The ledger is used under the lock only, and no order is carried out under it. All methods but ``stats``,
    ``connections`` and ``close`` run on a host loop: a sync caller's thread could be interrupted half-way.
    """

    def __init__(self, config: PoolConfig, name: str, dialer: Dialer) -> None:
        self.name = name
        self._capacities = Capacities(config)
        self.ledger = Ledger(config.limits, expected_capacity=self._capacities.expected)
        self._connect_timeout = config.timeouts.connect
        self._utilization = Utilization(config.warn_utilization, config.limits.max_connections)
        self._lock = threading.RLock()  # reentrant as ``hold`` requires; no thread acquires it twice
        self.tally = Tally(self._lock)
        self._dialer = dialer
        self._dials: dict[asyncio.Task[Connection], Lane] = {}  # those that the ledger counts
        self._alarm = Alarm(lambda: self.enter(self.ledger.tick))
        self._stats_alarm = Alarm(self._call_stats_listeners)
        self._last_stats: PoolStats | None = None
        self._conditions: list[tuple[Callable[[], bool], HostLoop, asyncio.Future[None]]] = []

    # Facts

    def enter(self, fact: Callable[..., list[Order]], *args: object) -> None:
        """Enter a fact in the ledger, and carry out its orders. ``fact`` is one of the ledger's methods."""
        with self._lock:
            orders = fact(*args, time.monotonic())
        self._carry_out(orders)

    def arrive(self, origin: Origin, host_loop: HostLoop, connect_timeout: float | None) -> Waiter:
        """A call needs a connection. Its waiter has an ``entry`` or an ``error``, or is in the queue.

        ``connect_timeout``: seconds for a dial that this call causes.
        """
        with self._lock:
            waiter = Waiter(self.ledger.lane(origin, host_loop), connect_timeout)
            orders = self.ledger.arrive(waiter, time.monotonic())
        self._carry_out(orders)
        return waiter

    def return_to_queue(self, waiter: Waiter) -> None:
        """A waiter's connection has closed before it was used, or its request is sent again."""
        with self._lock:
            waiter.entry = waiter.future = None
            waiter.returning = True
            orders = self.ledger.arrive(waiter, time.monotonic())
        self._carry_out(orders)

    def prewarm(self, origin: Origin, host_loop: HostLoop) -> None:
        """Keep ``min_connections`` open to ``origin`` on ``host_loop``, and load the TLS context."""
        self._dialer.prepare(origin)
        with self._lock:
            orders = self.ledger.prewarm(self.ledger.lane(origin, host_loop), time.monotonic())
        self._carry_out(orders)

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None:
        """An exchange on a connection has ended. ``hint``: see ``Owner``."""
        with self._lock:
            orders = self.ledger.released(entry, time.monotonic(), reusable=reusable, hint=hint)
        self._carry_out(orders)

    def due(self, entry: Entry) -> None:
        """An exchange on a connection will end within a moment: only its last bytes are missing."""
        self.enter(self.ledger.due, entry)

    def resized(self, entry: Entry, capacity: int) -> None:
        """The server has changed how many streams a connection may carry."""
        with self._lock:
            self._capacities.learn(entry.lane.origin, capacity)
            orders = self.ledger.resized(entry, capacity, time.monotonic())
        self._carry_out(orders)

    def retired(self, entry: Entry, reason: str) -> None:
        """A connection accepts no new calls."""
        self.enter(self.ledger.retire, entry, reason)

    def lost(self, entry: Entry) -> None:
        """On its host loop: a connection has closed. Its slot is free after the loop's next step.

        asyncio reports the end of a connection before it closes the socket. Without the delay the other host
        loop could dial in between, and the server would count one connection more than ``max_connections``.
        """
        self.enter(self.ledger.retire, entry, "lost")
        _host_loop(entry.lane).loop.call_soon(self.enter, self.ledger.died, entry, context=Context())

    def dialed(self, entry: Entry, seconds: float) -> None:
        """A connection that dials at its first call has connected, in ``seconds``."""
        self.tally.dialed(entry.lane.origin, seconds)
        self._schedule_stats()

    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None:
        """A connection that dials at its first call could not connect."""
        self.tally.dial_failed(entry.lane.origin, error)
        self._schedule_stats()

    def abort_on(self, host_loop: HostLoop) -> None:
        """On a host loop that is about to end: cancel its dials and abort its connections."""
        with self._lock:
            self.ledger.loop_ends(host_loop)
            dials = [task for task, lane in self._dials.items() if lane.host_loop is host_loop]
            connections = [
                entry.connection for entry in self.ledger.entries() if entry.lane.host_loop is host_loop
            ]
        for task in dials:
            task.cancel()
            host_loop.close_tasks.add(task)  # the end of the loop waits until the dial has closed its socket
        for connection in connections:
            connection.abort()

    def forget_loop(self, host_loop: HostLoop) -> None:
        """A host loop has ended: forget its waiters, dials and connections."""
        with self._lock:
            if not any(lane.host_loop is host_loop for lane in self.ledger.dial_policy.lanes()):
                return
            for task in [task for task, lane in self._dials.items() if lane.host_loop is host_loop]:
                del self._dials[task]
            orders = self.ledger.lost_loop(host_loop, PoolClosed(ENDED), time.monotonic())
        self._carry_out(orders)

    # Orders

    def _carry_out(self, orders: Iterable[Order]) -> None:
        for order in orders:
            host_loop = _host_loop_of(order)
            if host_loop.is_current:
                self._perform(order)
                continue
            try:
                host_loop.post(self._perform, order)
            except PoolClosed:
                self.forget_loop(host_loop)
        in_use, utilization = self.ledger.connections.in_use, self._utilization
        if (in_use >= utilization.threshold) != utilization.is_above and utilization.cross(in_use):
            warn_of_utilization(self.name, self.stats())
        when = self.ledger.next_timer_at
        if when is not None and when < self._alarm.due_at:
            self._alarm.set(when)
        if self._conditions:
            self._check_conditions()
        self._schedule_stats()

    def _perform(self, order: Order) -> None:
        match order:
            case Serve(waiter):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_result(None)
            case Fail(waiter, error):
                if waiter.future is not None and not waiter.future.done():
                    waiter.future.set_exception(self.error_for(error))
            case Dial(lane, timeout):
                self._dial(lane, timeout)
            case Close(entry, reason):
                connection = entry.connection
                if connection is not None:
                    logger.debug(
                        "pool %r closes a connection to %s: %s", self.name, entry.lane.origin, reason
                    )
                    connection.close()

    def error_for(self, refusal: object) -> LLMPoolError:
        """Make the exception for a waiter that the ledger has refused: each waiter gets its own."""
        if isinstance(refusal, LLMPoolError):
            return copy_of(refusal)
        if refusal == "full":
            self.tally.count("refused")
            limit = self.ledger.limits.max_waiting
            return PoolFull(
                f"pool {self.name!r}: the queue is full, at max_waiting {limit} ({describe(self.stats())})"
            )
        return PoolClosed(f"pool {self.name!r} is closed")

    # Dials

    def _dial(self, lane: Lane, timeout: float | None) -> None:
        host_loop = _host_loop(lane)
        if host_loop.closing:
            return  # ``forget_loop`` takes the dial off the ledger when the loop has ended
        task = host_loop.loop.create_task(self._connect(lane, host_loop, timeout), context=Context())
        task.add_done_callback(self._dial_ended, context=Context())
        with self._lock:
            self._dials[task] = lane
            closed = self.ledger.closed
        if closed:
            task.cancel()

    async def _connect(self, lane: Lane, host_loop: HostLoop, timeout: float | None) -> Connection:
        if timeout is None:
            timeout = self._connect_timeout
        return await self._dialer.dial(lane.origin, host_loop, self, timeout)

    def _dial_ended(self, task: asyncio.Task[Connection]) -> None:
        """The callback of a dial's task. It runs even if the task was cancelled before its first step."""
        error = _error_of(task)
        with self._lock:
            lane = self._dials.pop(task, None)
        if lane is None:
            return  # ``forget_loop`` has taken it off the ledger
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
            capacity = self._capacities.initial(lane.origin, connection)
            entry, orders = self.ledger.dialed(lane, connection, capacity, time.monotonic())
            connection.entry = entry
        self._carry_out(orders)
        if connection.closed:
            self.lost(entry)

    def call_ended(self, exchange: Exchange) -> None:
        """A call that had a connection has ended: it is complete, has failed, or was cancelled."""
        complete = exchange.complete or exchange.is_complete_enough
        self.tally.call_ended(exchange.marks, complete=complete)
        if not complete and exchange.error is None:
            self.tally.count("cancelled")
        self._schedule_stats()

    def leak_suspected(self) -> None:
        """A response has been held longer than ``leak_threshold``."""
        self.tally.count("leaks_suspected")
        self._schedule_stats()

    # The pool as a whole

    def stats(self) -> PoolStats:
        """The pool's state now, and its counters. From any thread."""
        return hold(self._lock, self._take_stats)

    def connections(self) -> list[ConnectionInfo]:
        """Each connection as it is now, oldest first. From any thread; O(connections)."""
        return hold(self._lock, lambda: list_connections(self.ledger, time.monotonic()))

    def _take_stats(self) -> PoolStats:
        return take_stats(self.ledger, self.tally, time.monotonic())

    def _schedule_stats(self) -> None:
        if stats_listeners and self._stats_alarm.due_at == inf:
            self._stats_alarm.set(time.monotonic() + STATS_INTERVAL)

    def _call_stats_listeners(self) -> None:
        with self._lock:
            before, self._last_stats = self._last_stats, self._take_stats()
            now = self._last_stats
        stats_listeners.call(self.name, now, before)

    def drain(self) -> None:
        """Retire every connection. Wait for ``ledger.draining == 0`` by ``until``."""
        self.enter(self.ledger.drain)

    def close(self) -> None:
        """Fail waiters and calls, cancel dials, and close connections. Wait for their end by ``until``.

        A thread without an event loop may call it if there is nothing to close.
        """
        self._carry_out(hold(self._lock, self.ledger.close, time.monotonic()))
        for task, lane in hold(self._lock, list, self._dials.items()):
            _post_if_alive(_host_loop(lane), task.cancel)

    def abort(self) -> None:
        """Abort every connection."""
        with self._lock:
            connections = [entry.connection for entry in self.ledger.entries()]
        for connection in connections:
            _post_if_alive(connection.host_loop, connection.abort)

    async def until(self, condition: Callable[[], bool], host_loop: HostLoop, timeout: float | None) -> bool:
        """On ``host_loop``: wait until ``condition`` of the ledger holds. False after ``timeout`` seconds."""
        future = host_loop.loop.create_future()
        waiting = (condition, host_loop, future)
        self._conditions.append(waiting)
        try:
            self._check_conditions()
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return condition()
        finally:
            self._conditions.remove(waiting)
        return True

    def _check_conditions(self) -> None:
        for condition, host_loop, future in list(self._conditions):
            if condition():
                _post_if_alive(host_loop, wake, future)

    def forget_parent(self) -> None:
        """In the child of a fork: close its copies of the parent's sockets, without writing to them."""
        self._dialer.forget_parent()


def _host_loop_of(order: Order) -> HostLoop:
    return _host_loop(order.lane if isinstance(order, Dial) else order[0].lane)


def _host_loop(lane: Lane) -> HostLoop:
    assert isinstance(lane.host_loop, HostLoop)
    return lane.host_loop


def _error_of(task: asyncio.Task[Connection]) -> LLMPoolError | None:
    if task.cancelled():
        return PoolClosed("the dial was cancelled")
    error = task.exception()
    if error is None or isinstance(error, LLMPoolError):
        return error
    logger.error("a dial failed unexpectedly", exc_info=error)
    unexpected = ConnectFailed(f"no connection could be made: {error!r}")
    unexpected.__cause__ = error
    return unexpected


def _post_if_alive(host_loop: HostLoop, function: Callable[..., object], *args: object) -> None:
    try:
        host_loop.post(function, *args)
    except PoolClosed:
        logger.debug("a host loop has ended before its connections")
