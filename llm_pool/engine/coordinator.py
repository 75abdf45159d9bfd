"""Connects a pool's ledger to the event loops: enters facts in it, and carries out its orders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextvars import Context
from math import inf

from llm_pool.exceptions import ConnectFailed, LLMPoolError, PoolClosed, PoolFull, copy_of

from .capacity import Capacities
from .clock import monotonic
from .config import Origin, PoolConfig
from .connection import Connection
from .dialer.dialer import Dialer
from .exchange import Exchange
from .ledger.ledger import Ledger
from .ledger.state import Close, Dial, Entry, Fail, Lane, Order, Serve, Waiter
from .loops.alarm import Alarm
from .loops.host_loop import ENDED, HostLoop
from .loops.threads import hold, new_rlock, wake
from .stats.inventory import ConnectionInfo, list_connections
from .stats.listeners import STATS_INTERVAL, stats_listeners
from .stats.stats import PoolStats, Tally, describe, take_stats
from .stats.utilization import Utilization, warn_of_utilization

__all__ = ["Coordinator"]

logger = logging.getLogger("llm_pool.engine")


class Coordinator:
    """Gives a pool's ledger a lock and a clock, and carries out its orders on the host loops.

    The ledger is changed only with the lock held. Orders are carried out after the lock is released. Only
    ``stats``, ``connections`` and ``close`` can run on a sync caller's thread, which can be interrupted
    half-way. ``forget_parent`` runs in the child of a fork, and all other methods run on an event loop.
    """

    def __init__(self, config: PoolConfig, name: str, dialer: Dialer) -> None:
        self.name = name
        self._capacities = Capacities(config)
        self.ledger = Ledger(config.limits, expected_capacity=self._capacities.expected)
        self._connect_timeout = config.timeouts.connect
        self._utilization = Utilization(config.warn_utilization, config.limits.max_connections)
        self._lock = new_rlock()  # reentrant as ``hold`` requires; no thread acquires it twice
        self.tally = Tally(self._lock)
        self._dialer = dialer
        self._dials: dict[asyncio.Task[Connection], Lane] = {}  # the dials that the ledger counts
        self._alarm = Alarm(lambda: self.enter(self.ledger.tick))
        self._stats_alarm = Alarm(self._call_stats_listeners)
        self._last_stats: PoolStats | None = None
        self._conditions: list[tuple[Callable[[], bool], HostLoop, asyncio.Future[None]]] = []

    # Facts

    def enter(self, fact: Callable[..., list[Order]], *args: object) -> None:
        """Enter a fact in the ledger, and carry out the orders that it returns.

        ``fact`` is a method of the ledger. It is called with ``args`` and the current time.
        """
        with self._lock:
            orders = fact(*args, monotonic())
        self._carry_out(orders)

    def arrive(self, origin: Origin, host_loop: HostLoop, connect_timeout: float | None) -> Waiter:
        """Enter a new call in the ledger, and return its waiter.

        The waiter has an ``entry`` (a connection) or an ``error``, or it is in the queue.
        ``connect_timeout``: seconds for a dial that is started for this call; None for no limit.
        """
        with self._lock:
            timeout = inf if connect_timeout is None else connect_timeout
            waiter = Waiter(self.ledger.dial_policy.lane(origin, host_loop), timeout)
            orders = self.ledger.arrive(waiter, monotonic())
        self._carry_out(orders)
        return waiter

    def return_to_queue(self, waiter: Waiter) -> None:
        """Enter a waiter in the ledger again: its connection is unusable, or its request is sent again.

        After that the waiter has an ``entry`` (a connection) or an ``error``, or it is in the queue.
        """
        with self._lock:
            waiter.entry = waiter.future = None
            waiter.returning = True
            orders = self.ledger.arrive(waiter, monotonic())
        self._carry_out(orders)

    def prewarm(self, origin: Origin, host_loop: HostLoop) -> None:
        """Keep ``min_connections`` to ``origin`` open on ``host_loop`` from now on.

        For an https origin, also start to build the TLS context. Returns before the connections are open.
        """
        self._dialer.prepare(origin)
        with self._lock:
            orders = self.ledger.prewarm(self.ledger.dial_policy.lane(origin, host_loop), monotonic())
        self._carry_out(orders)

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None:
        """Called when an exchange on a connection has ended.

        ``reusable``: whether the connection can carry another exchange. ``hint``: seconds for which the
        server keeps an idle connection open; None if not announced.
        """
        with self._lock:
            orders = self.ledger.released(entry, monotonic(), reusable=reusable, hint=hint)
        self._carry_out(orders)

    def due(self, entry: Entry) -> None:
        """Called when an exchange is about to end: only the last bytes of its response are missing."""
        self.enter(self.ledger.due, entry)

    def resized(self, entry: Entry, capacity: int) -> None:
        """Called when a connection can carry ``capacity`` streams from now on; 0 means none for now."""
        with self._lock:
            self._capacities.learn(entry.lane.origin, capacity)
            orders = self.ledger.resized(entry, capacity, monotonic())
        self._carry_out(orders)

    def retired(self, entry: Entry, reason: str) -> None:
        """Called when a connection accepts no new calls any more.

        ``reason``: why it accepts none. ``PoolStats.closed`` counts the connections by this reason.
        """
        self.enter(self.ledger.retire, entry, reason)

    def lost(self, entry: Entry) -> None:
        """Called on the host loop when a connection has closed. The next step of the loop frees its slot.

        asyncio reports the end of a connection before it closes the socket. Without the delay the other host
        loop could dial in between, and the server would count one connection more than ``max_connections``.
        """
        self.enter(self.ledger.retire, entry, "lost")
        _host_loop(entry.lane).loop.call_soon(self.enter, self.ledger.died, entry, context=Context())

    def dialed(self, entry: Entry, seconds: float) -> None:
        """Called when a connection of ``backends`` has connected, which took ``seconds``."""
        self.tally.dialed(entry.lane.origin, seconds)
        self._schedule_stats()

    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None:
        """Called when a connection of ``backends`` could not connect."""
        self.tally.dial_failed(entry.lane.origin, error)
        self._schedule_stats()

    def abort_on(self, host_loop: HostLoop) -> None:
        """Cancel the dials of a host loop and abort its connections. Runs on the loop, before it ends."""
        with self._lock:
            self.ledger.loop_ends(host_loop)
            dials = [task for task, lane in self._dials.items() if lane.host_loop is host_loop]
            connections = self._connections_on(host_loop)
        for task in dials:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().abort()  # ``_dial_ended`` is about to run, too late for the list of connections
            host_loop.close_tasks.add(task)  # the end of the loop waits until the dial has closed its socket
        for connection in connections:
            connection.abort()

    def forget_loop(self, host_loop: HostLoop) -> None:
        """Fail the waiters of a host loop that has ended, and remove its dials and connections."""
        with self._lock:
            if not any(lane.host_loop is host_loop for lane in self.ledger.dial_policy.lanes()):
                return
            for task in [task for task, lane in self._dials.items() if lane.host_loop is host_loop]:
                del self._dials[task]
            connections = self._connections_on(host_loop)
            orders = self.ledger.lost_loop(host_loop, PoolClosed(ENDED), monotonic())
        for connection in connections:
            host_loop.post_if_open(connection.abort)  # for a lost loop that goes on
        self._carry_out(orders)

    def _connections_on(self, host_loop: HostLoop) -> list[Connection]:
        return [entry.connection for entry in self.ledger.entries() if entry.lane.host_loop is host_loop]

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
        when = self.ledger.timers.next_at
        if when is not None and when < self._alarm.due_at:
            self._alarm.set(when)
        if self._conditions:
            self._check_conditions()
        if stats_listeners:
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
        """Return a new exception for a waiter that failed. It is not shared, since it keeps a traceback.

        ``refusal``: the ``error`` of the waiter or of its order ``Fail``: an LLMPoolError, "full" or
        "closed". Each "full" adds one to ``PoolStats.refused``.
        """
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
            return  # ``forget_loop`` removes the dial from the ledger when the loop has ended
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
        return await self._dialer.dial(lane.origin, host_loop, self, None if timeout == inf else timeout)

    def _dial_ended(self, task: asyncio.Task[Connection]) -> None:
        """Enter the result of a dial in the ledger.

        This is a callback of the dial's task, so that it runs even if the task is cancelled before its first
        step.
        """
        error = _error_of(task)
        with self._lock:
            lane = self._dials.pop(task, None)
        if lane is None:
            return  # ``forget_loop`` has removed it from the ledger
        if error is None and task.result().closed:
            error = task.result().lost_before_use(lane.origin)
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
            entry, orders = self.ledger.dialed(lane, connection, capacity, monotonic())
            connection.entry = entry
        self._carry_out(orders)

    def call_ended(self, exchange: Exchange) -> None:
        """Count a call that had a connection and has ended: it is complete, has failed, or was cancelled."""
        complete = exchange.complete or exchange.is_complete_enough
        self.tally.call_ended(exchange.marks, complete=complete)
        if not complete and exchange.error is None:
            self.tally.count("cancelled")
        if stats_listeners:
            self._schedule_stats()

    def leak_suspected(self) -> None:
        """Count a response that is still open after ``leak_threshold`` seconds."""
        self.tally.count("leaks_suspected")
        self._schedule_stats()

    # The pool as a whole

    def stats(self) -> PoolStats:
        """Return the pool's present state and its counters. Can be called from any thread."""
        return hold(self._lock, self._take_stats)

    def connections(self) -> list[ConnectionInfo]:
        """Return the present state of each connection, the oldest first. Can be called from any thread.

        Costs O(connections).
        """
        return hold(self._lock, lambda: list_connections(self.ledger, monotonic()))

    def _take_stats(self) -> PoolStats:
        return take_stats(self.ledger, self.tally, monotonic())

    def _schedule_stats(self) -> None:
        if self._stats_alarm.due_at == inf:
            self._stats_alarm.set(monotonic() + STATS_INTERVAL)

    def _call_stats_listeners(self) -> None:
        with self._lock:
            before, self._last_stats = self._last_stats, self._take_stats()
            now = self._last_stats
        stats_listeners.call(self.name, now, before)

    def drain(self) -> None:
        """Retire every connection. Use ``until`` to wait for ``ledger.draining == 0``."""
        self.enter(self.ledger.drain)

    def close(self) -> None:
        """Fail waiters and calls, cancel dials and close connections.

        Use ``until`` to wait for ``ledger.total == 0``. A thread without an event loop can call this method
        only if no connection is open, dialed or closing, and no call waits.
        """
        self._carry_out(hold(self._lock, self.ledger.close, monotonic()))
        for task, lane in hold(self._lock, list, self._dials.items()):
            _post_if_alive(_host_loop(lane), task.cancel)

    def abort(self) -> None:
        """Abort every connection."""
        with self._lock:
            connections = [entry.connection for entry in self.ledger.entries()]
        for connection in connections:
            _post_if_alive(connection.host_loop, connection.abort)

    async def until(self, condition: Callable[[], bool], host_loop: HostLoop, timeout: float | None) -> bool:
        """Wait until ``condition()`` is true, at most ``timeout`` seconds. Return whether it became true.

        Runs on ``host_loop``. ``condition`` is checked at first and after each change of the ledger. If
        ``timeout`` is None, the wait has no limit.
        """
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
        """In the child of a fork: close the copies of the parent's sockets, without writing to them."""
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
