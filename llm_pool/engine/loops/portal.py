"""The event loop that hosts the connections of a call: the server loop, or the portal.

A sync view, a Celery task, ``asyncio.run`` and ``async_to_sync`` have loops that end with the call, or no
loop at all. Their connections live on the portal: one daemon thread with a loop, started on first need. The
loop of an ASGI server outlives its requests. After ``adopt_server_loop`` it hosts the connections of calls
made on it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable

from llm_pool.exceptions import PoolClosed

from .host_loop import HostLoop
from .threads import start_thread

__all__ = [
    "adopt_server_loop",
    "after_fork",
    "after_loop_ended",
    "before_loop_ends",
    "host_loop_of_caller",
    "is_on_server_loop",
    "is_portal",
    "left_to_parent",
    "portal",
    "release_server_loop",
    "stop",
]

THREAD_NAME = "llm_pool-portal"
FINAL_STEPS = 5  # steps of a loop before it ends: an aborted TLS connection takes four to close its socket


class _Process:
    """The loops of this process.

    ``ending``        whether the interpreter is exiting
    ``portal``        the portal started last, which may have ended; None before the first
    ``successors``    for each portal (None: before the first) the one that replaced it
    ``server``        the server loop, if there is one
    ``end_watchers``  for each adopted loop the generator that notices its end
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.ending = False
        self.portal: HostLoop | None = None
        self.successors: dict[HostLoop | None, HostLoop] = {}
        self.server: HostLoop | None = None
        self.end_watchers: dict[HostLoop, AsyncGenerator[None]] = {}


_process = _Process()
_after_fork: list[Callable[[], None]] = []
_before_loop_ends: list[Callable[[HostLoop], None]] = []
_after_loop_ended: list[Callable[[HostLoop], None]] = []
left_to_parent: list[object] = []
"""In a forked child: the parent's objects. If they were collected, their finalizers would run here."""


def portal() -> HostLoop:
    """Return the portal; start it if it does not run. Raises PoolClosed while the process is ending."""
    process = _process
    server, host_loop = process.server, process.portal
    if host_loop is None or host_loop.closing:
        host_loop = _start_portal()
    if server is not None and server.loop.is_closed():
        # On the portal: an interrupt could stop the caller's thread half-way.
        host_loop.post(_forget_loop, server)
    return host_loop


def is_portal(host_loop: object) -> bool:
    """Whether ``host_loop`` is the portal, and not a server loop."""
    return host_loop is _process.portal


def is_on_server_loop() -> bool:
    """Whether the caller runs on the server loop."""
    server = _process.server
    return server is not None and server.is_current


def host_loop_of_caller() -> HostLoop:
    """The loop that hosts the caller's connections: the server loop if it runs there, or the portal."""
    server = _process.server
    if server is not None and server.is_current and not server.closing:
        return server
    return portal()


def adopt_server_loop() -> HostLoop:
    """Make the running loop the server loop, until it ends. It must outlive every request."""
    process = _process
    server = process.server
    if server is not None and server.is_current and not server.closing:
        return server
    adopted = list(process.end_watchers)
    host_loop = next((loop for loop in adopted if loop.is_current and not loop.closing), None)
    if host_loop is None:
        host_loop = HostLoop(asyncio.get_running_loop())
        process.end_watchers[host_loop] = _watch_end(host_loop)
    process.server = host_loop
    for earlier in adopted:
        if earlier.loop.is_closed():
            _forget_loop(earlier)
    return host_loop


def release_server_loop() -> None:
    """Have no server loop from now on. Connections on the former one stay there until it ends."""
    _process.server = None


def stop() -> None:
    """End the portal, and wait for its thread. The next call starts another portal."""
    host_loop = _process.portal
    if host_loop is not None and host_loop.thread is not None:
        host_loop.refuse_calls()
        with contextlib.suppress(PoolClosed):
            host_loop.post(host_loop.loop.stop)
        host_loop.thread.join()


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Call ``function`` in the child after a fork, after the parent's loops have been forgotten."""
    _after_fork.append(function)
    return function


def before_loop_ends(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Call ``function(host_loop)`` on a loop that is about to end, ``FINAL_STEPS`` steps before its end."""
    _before_loop_ends.append(function)
    return function


def after_loop_ended(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Call ``function(host_loop)`` after a loop has ended; possibly more than once for one loop."""
    _after_loop_ended.append(function)
    return function


# The portal's thread


class _Start:
    """The start of a portal. The caller's thread waits until the portal's thread calls ``end``."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self._done.release()

    def wait(self) -> None:
        self._done.acquire()


def _start_portal() -> HostLoop:
    """Start a portal. Its own thread sets ``_process.portal``: an interrupt cannot stop that half-way."""
    process, start = _process, _Start()
    if process.ending:
        raise PoolClosed("the process is ending")
    start_thread(_run_portal, process, process.portal, start, name=THREAD_NAME)
    start.wait()
    if start.error is not None:
        raise start.error
    assert process.portal is not None
    return process.portal


def _run_portal(process: _Process, predecessor: HostLoop | None, start: _Start) -> None:
    """On the portal's thread: replace ``predecessor`` and run, unless another portal has replaced it."""
    try:
        host_loop = HostLoop(asyncio.new_event_loop(), threading.current_thread())
    except BaseException as error:  # noqa: BLE001  the caller raises it
        start.end(error)
        return
    # One step, and no lock: the garbage collector may run code here that itself needs a portal.
    process.portal = process.successors.setdefault(predecessor, host_loop)
    start.end()
    if process.successors[predecessor] is host_loop:
        _run(host_loop)
    else:
        host_loop.loop.close()


def _run(host_loop: HostLoop) -> None:
    asyncio.set_event_loop(host_loop.loop)
    try:
        host_loop.loop.run_forever()
    finally:
        host_loop.loop.run_until_complete(_end_portal(host_loop))
        host_loop.loop.close()


async def _end_portal(host_loop: HostLoop) -> None:
    host_loop.refuse_calls()
    await asyncio.sleep(0)  # the calls posted before start now, and are cancelled below
    tasks = asyncio.all_tasks() - {asyncio.current_task()} - host_loop.close_tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _end_loop(host_loop)


# The end of a host loop


def _watch_end(host_loop: HostLoop) -> AsyncGenerator[None]:
    """On an adopted loop: arrange that ``_end_loop`` runs before the loop ends.

    asyncio has no callback for that, but closes the asynchronous generators that have started on the loop
    (``shutdown_asyncgens``).
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
    """On a loop that is about to end: close its connections, then forget it."""
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


def _at_exit() -> None:
    """At the exit of the interpreter: no thread can be started from now on."""
    _process.ending = True
    stop()


# Forks


def _forget_parent() -> None:
    """In the child of a fork: forget the parent's loops, then call the functions of ``after_fork``."""
    left_to_parent.append(vars(_process).copy())
    for host_loop in (_process.portal, _process.server, *_process.end_watchers):
        if host_loop is not None:
            host_loop.forget_parent()
    _process.begin()
    for function in _after_fork:
        function()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_forget_parent)
