"""The event loop that hosts the connections of a call: the server loop, or the portal.

Sync views, Celery tasks, ``asyncio.run`` and ``async_to_sync`` have an event loop that ends with the call, or
no event loop. The connections of their calls belong to the portal: a daemon thread with a loop of its own,
started when a call first needs it. The loop of an ASGI server runs longer than its requests. After
``adopt_server_loop`` it hosts the connections of the calls made on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from llm_pool.exceptions import PoolClosed, TransportFailed, reason

from .host_loop import HostLoop, LoopEnded, running_loop
from .log_thread import flush, hand_over
from .portal_loop import new_loop
from .process import after_fork, at_exit, left_to_parent, notice_fork
from .threads import locked, start_thread, this_thread

__all__ = [
    "adopt_server_loop",
    "after_loop_ended",
    "before_loop_ends",
    "host_loop_of_caller",
    "is_on_server_loop",
    "is_portal",
    "portal",
    "release_server_loop",
    "run_on_portal",
    "stop",
]

T = TypeVar("T")

logger = logging.getLogger("llm_pool.engine")

THREAD_NAME = "llm_pool-portal"
OWN_LOGGERS = ("llm_pool.engine",)
FOREIGN_LOGGERS = (  # of libraries that run on the portal; a filter of a logger does not act on its children
    "asyncio",
    "hpack.hpack",
    "hpack.table",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "httpx",
    "aiohttp.client",
    "aiohttp.internal",
)
START_SECONDS = 10.0  # how long a caller waits for the portal's thread to start
STOP_SECONDS = 5.0  # how long the end of the process waits for the portal's thread
FINAL_STEPS = 5  # steps of a loop before it ends: an aborted TLS connection needs four to close its socket


class _Process:
    """The host loops of this process.

    ``ending``        whether the interpreter is exiting
    ``portal``        the portal that was started last, which may have ended; None before the first
    ``successors``    maps each portal to the portal that replaced it, and None to the first portal
    ``server``        the server loop, or None
    ``threads``       the identities of the portals' threads
    ``end_watchers``  maps each adopted loop to the generator that runs ``_end_loop`` before its end
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.ending = False
        self.portal: HostLoop | None = None
        self.successors: dict[HostLoop | None, HostLoop] = {}
        self.server: HostLoop | None = None
        self.threads: set[int] = set()
        self.end_watchers: dict[HostLoop, AsyncGenerator[None]] = {}


_process = _Process()
_before_loop_ends: list[Callable[[HostLoop], None]] = []
_after_loop_ended: list[Callable[[HostLoop], None]] = []


def portal() -> HostLoop:
    """Return the portal, and start it if it is not running. Raises PoolClosed if the process is exiting."""
    notice_fork()
    process = _process
    server, host_loop = process.server, process.portal
    while host_loop is None or host_loop.closing:
        host_loop = _start_portal(host_loop)
    if server is not None and server.loop.is_closed():
        # Post it, since an interrupt could stop the caller's thread half-way.
        host_loop.post(_forget_loop, server)
    return host_loop


def run_on_portal(
    function: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    undo: Callable[[T], object] | None = None,
    total: float | None = None,
) -> T:
    """Await ``function(portal, *args)`` on the portal, and return its result. Blocks the calling thread.

    ``undo`` and ``total`` are those of ``HostLoop.arun``. Raises the function's error, and the errors of
    ``portal`` and of ``HostLoop.run``.
    """
    while True:
        host_loop = portal()
        try:
            return host_loop.run(function, host_loop, *args, undo=undo, total=total)
        except LoopEnded:
            continue  # it has ended since, or its descriptors were closed


def is_portal(host_loop: object) -> bool:
    """Return whether ``host_loop`` is a portal, and not a server loop."""
    return isinstance(host_loop, HostLoop) and host_loop.thread_lock is not None


def is_on_server_loop() -> bool:
    """Return whether the calling code runs on the server loop."""
    notice_fork()
    server = _process.server
    return server is not None and server.is_current


def host_loop_of_caller() -> HostLoop:
    """Return the server loop if the caller runs on it and it accepts calls, otherwise the portal.

    Raises PoolClosed if the portal is needed and the process is exiting.
    """
    notice_fork()
    server = _process.server
    if server is not None and server.loop is asyncio._get_running_loop() and not server.closing:
        return server
    return portal()


def adopt_server_loop() -> HostLoop:
    """Make the running loop the server loop until it ends, and return its ``HostLoop``.

    The loop must run longer than every request. Raises UnsupportedEventLoop if no loop of asyncio is running.
    """
    notice_fork()
    process = _process
    server = process.server
    if server is not None and server.is_current and not server.closing:
        return server
    adopted = list(process.end_watchers)
    host_loop = next((loop for loop in adopted if loop.is_current and not loop.closing), None)
    if host_loop is None:
        host_loop = HostLoop(running_loop())
        process.end_watchers[host_loop] = _watch_end(host_loop)
    process.server = host_loop
    for earlier in adopted:
        if earlier.loop.is_closed():
            _forget_loop(earlier)
    return host_loop


def release_server_loop() -> None:
    """Use the server loop for no more calls. Calls in progress on the server loop go on."""
    _process.server = None


def stop() -> None:
    """Stop the portal, and wait until its thread has ended, at most ``STOP_SECONDS``.

    The next call that needs a portal starts another.
    """
    notice_fork()
    host_loop = _process.portal
    # Two threads that start a portal can set ``_process.portal`` in the wrong order.
    while (successor := _process.successors.get(host_loop)) is not None:
        host_loop = successor
    if host_loop is not None:
        host_loop.refuse_calls()
        with contextlib.suppress(PoolClosed):
            host_loop.post(host_loop.loop.stop)
        if host_loop.thread_lock.acquire(timeout=STOP_SECONDS):
            host_loop.thread_lock.release()  # for other threads that call ``stop``
            if host_loop.thread is not None:
                host_loop.thread.join()


def before_loop_ends(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Register ``function(host_loop)`` to be called on each host loop before that loop ends.

    After the call the loop still runs for at least ``FINAL_STEPS`` steps. Returns ``function``.
    """
    _before_loop_ends.append(function)
    return function


def after_loop_ended(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Register ``function(host_loop)`` to be called after each host loop has ended. Returns ``function``.

    ``function`` can be called more than once for the same loop.
    """
    _after_loop_ended.append(function)
    return function


# The portal's thread


class _Start:
    """The start of a portal. ``wait`` blocks the caller's thread until the portal's thread calls ``end``.

    ``error``  the reason why the portal could not start; None if it has started
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._done = locked()

    def end(self, error: Exception | None = None) -> None:
        self.error = error
        self._done.release()

    def wait(self) -> bool:
        """Return False if ``end`` was not called within ``START_SECONDS``."""
        return bool(self._done.acquire(timeout=START_SECONDS))


def _start_portal(predecessor: HostLoop | None) -> HostLoop:
    """Return the portal that replaces ``predecessor``. Start it if no other thread has done so.

    ``predecessor``: the previous portal, which accepts no calls any more; None before the first portal. The
    portal's thread sets ``_process.portal``, because no interrupt can stop that thread half-way. Raises
    PoolClosed if the process is exiting, or TransportFailed if the system can start no thread or no loop.
    """
    process, start = _process, _Start()
    if process.ending:
        raise PoolClosed("the process is ending")
    try:
        start_thread(_portal_thread, process, predecessor, start, name=THREAD_NAME)
    except (RuntimeError, MemoryError) as error:
        raise TransportFailed(f"the thread of the pool's connections cannot start: {error}") from error
    if not start.wait():
        raise TransportFailed(
            f"the thread of the pool's connections did not start within {START_SECONDS:g} s. Does the server "
            "run threads? (uWSGI: --enable-threads)"
        )
    if start.error is not None:
        raise TransportFailed(
            f"the event loop of the pool's connections cannot start: {reason(start.error)}"
        ) from start.error
    return process.successors[predecessor]


def _portal_thread(process: _Process, predecessor: HostLoop | None, start: _Start) -> None:
    process.threads.add(this_thread())
    try:
        _run_portal(process, predecessor, start)
    finally:
        process.threads.discard(this_thread())


def _run_portal(process: _Process, predecessor: HostLoop | None, start: _Start) -> None:
    """Run a new portal in place of ``predecessor``, unless ``predecessor`` has been replaced already.

    Runs on the new portal's thread.
    """
    try:
        host_loop = HostLoop(new_loop(), locked())
    except Exception as error:  # noqa: BLE001  the caller raises it
        start.end(error)
        return
    # One step without a lock: the garbage collector can run code here that needs a portal too.
    process.portal = process.successors.setdefault(predecessor, host_loop)
    start.end()
    if process.successors[predecessor] is not host_loop:
        host_loop.loop.close()
        return
    if predecessor is not None and predecessor.lost:
        host_loop.loop.call_soon(_forget_loop, predecessor)
    _run(host_loop)


def _run(host_loop: HostLoop) -> None:
    # A loop that runs needs no ``set_event_loop``, which may call ``current_thread`` (see HostLoop).
    try:
        with contextlib.suppress(SystemExit, KeyboardInterrupt):  # of a callback: the loop itself is sound
            host_loop.loop.run_forever()
        host_loop.loop.run_until_complete(_end_portal(host_loop))
    except Exception:
        logger.exception("the pool's event loop has failed; the next call starts another")
    finally:
        host_loop.loop.close()
        _forget_loop(host_loop)
        host_loop.thread_lock.release()


async def _end_portal(host_loop: HostLoop) -> None:
    host_loop.refuse_calls()
    await asyncio.sleep(0)  # posted functions run now; posted calls that have not started fail
    tasks = asyncio.all_tasks() - {asyncio.current_task()} - host_loop.close_tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _end_loop(host_loop)


# The end of a host loop


def _watch_end(host_loop: HostLoop) -> AsyncGenerator[None]:
    """Return a generator that runs ``_end_loop`` before an adopted loop ends. The caller must keep it.

    Must be called on the adopted loop. asyncio has no callback for the end of a loop, but
    ``shutdown_asyncgens`` closes the asynchronous generators that were started on the loop. So this function
    starts a generator whose ``finally`` runs ``_end_loop``.
    """

    async def wait_for_end() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await _end_loop(host_loop)

    watcher = wait_for_end()
    with contextlib.suppress(StopIteration):
        watcher.asend(None).send(None)  # start it
    return watcher


async def _end_loop(host_loop: HostLoop) -> None:
    """Close the connections of a loop, then forget the loop. Runs on the loop, before it ends."""
    host_loop.refuse_calls()
    for function in _before_loop_ends:
        function(host_loop)
    await host_loop.wait_for_close_tasks()
    for _ in range(FINAL_STEPS):
        await asyncio.sleep(0)
    _forget_loop(host_loop)


def _forget_loop(host_loop: HostLoop) -> None:
    host_loop.end()
    _process.end_watchers.pop(host_loop, None)
    if _process.server is host_loop:
        _process.server = None
    for function in _after_loop_ended:
        function(host_loop)


@at_exit
def _stop_for_good() -> None:
    """Stop the portal when the interpreter exits. No other portal is started after that."""
    flush()  # a handler can call a pool
    _process.ending = True
    stop()
    flush()


# Forks


@after_fork
def _forget_parent() -> None:
    """In the child of a fork: forget the parent's loops."""
    left_to_parent.append(vars(_process).copy())
    for host_loop in (_process.portal, _process.server, *_process.end_watchers):
        if host_loop is not None:
            host_loop.forget_parent()
    _process.begin()


def _is_on_portal_thread() -> bool:
    return this_thread() in _process.threads


hand_over(FOREIGN_LOGGERS, _is_on_portal_thread)
hand_over(OWN_LOGGERS, lambda: _is_on_portal_thread() or is_on_server_loop())
