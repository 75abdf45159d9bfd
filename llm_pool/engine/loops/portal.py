"""Which event loop hosts the connections of a call: the server loop, or the process's own, the portal.

A sync view, a Celery task, ``asyncio.run`` and ``async_to_sync`` have loops that end with the call, or no
loop at all. Their connections live on the portal: one daemon thread with a loop, started on first need. The
loop of an ASGI server lasts, and hosts connections itself once ``adopt_server_loop`` has named it.
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
    "portal",
    "release_server_loop",
    "stop",
]

THREAD_NAME = "llm_pool-portal"
LAST_TURNS = 5  # of a loop that ends: an aborted TLS connection needs four to close its socket and report it


class _Process:
    """The loops of this process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.ending = False
        self.portal: HostLoop | None = None  # the last that was started; it may have ended
        self.successors: dict[HostLoop | None, HostLoop] = {}  # which portal took the place of which
        self.server: HostLoop | None = None
        self.watches: dict[HostLoop, AsyncGenerator[None]] = {}  # one for each loop that was adopted


_process = _Process()
_after_fork: list[Callable[[], None]] = []
_before_loop_ends: list[Callable[[HostLoop], None]] = []
_after_loop_ended: list[Callable[[HostLoop], None]] = []
_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's


def portal() -> HostLoop:
    """The portal; starts its thread if need be. Raises PoolClosed at the end of the process."""
    process = _process
    server, host_loop = process.server, process.portal
    if host_loop is None or host_loop.closing:
        host_loop = _start_portal()
    if server is not None and server.loop.is_closed():
        host_loop.post(_forget, server)  # not here: the caller's thread may be interrupted half-way
    return host_loop


def is_portal(host_loop: object) -> bool:
    """Whether ``host_loop`` is the portal, and not a server loop."""
    return host_loop is _process.portal


def is_on_server_loop() -> bool:
    """Whether the caller runs on the server loop, which serves all requests."""
    server = _process.server
    return server is not None and server.is_current


def host_loop_of_caller() -> HostLoop:
    """The loop that hosts the caller's connections: the server loop, if it runs there, or the portal."""
    server = _process.server
    if server is not None and server.is_current and not server.closing:
        return server
    return portal()


def adopt_server_loop() -> HostLoop:
    """Make the running loop the server loop: it outlives every request. It is forgotten when it ends."""
    process = _process
    server = process.server
    if server is not None and server.is_current and not server.closing:
        return server
    adopted = list(process.watches)
    host_loop = next((each for each in adopted if each.is_current and not each.closing), None)
    if host_loop is None:
        host_loop = HostLoop(asyncio.get_running_loop())
        process.watches[host_loop] = _watch(host_loop)
    process.server = host_loop
    for each in adopted:
        if each.loop.is_closed():
            _forget(each)
    return host_loop


def release_server_loop() -> None:
    """Have no server loop. The connections that live on it stay there until it ends."""
    _process.server = None


def stop() -> None:
    """End the portal's thread. The next call starts another."""
    host_loop = _process.portal
    if host_loop is not None and host_loop.thread is not None:
        host_loop.refuse_calls()
        with contextlib.suppress(PoolClosed):
            host_loop.post(host_loop.loop.stop)
        host_loop.thread.join()


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Call ``function`` in the child after a fork, when the parent's loops have been forgotten."""
    _after_fork.append(function)
    return function


def before_loop_ends(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Call ``function(host_loop)`` on a loop that is about to end; the loop turns a few times more."""
    _before_loop_ends.append(function)
    return function


def after_loop_ended(function: Callable[[HostLoop], None]) -> Callable[[HostLoop], None]:
    """Call ``function(host_loop)`` when a loop has ended. It may be called again for the same loop."""
    _after_loop_ended.append(function)
    return function


# The portal's thread


class _Start:
    """A portal's start, as the caller that needs it awaits it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._over = threading.Lock()
        self._over.acquire()

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self._over.release()

    def wait(self) -> None:
        self._over.acquire()


def _start_portal() -> HostLoop:
    """Start a portal. Its own thread makes it the process's: the caller's may be interrupted anywhere."""
    process, start = _process, _Start()
    if process.ending:
        raise PoolClosed("the process is ending")
    start_thread(_run_portal, process, process.portal, start, name=THREAD_NAME)
    start.wait()
    if start.error is not None:
        raise start.error
    assert process.portal is not None
    return process.portal


def _run_portal(process: _Process, before: HostLoop | None, start: _Start) -> None:
    """On the portal's thread: take the place of the portal ``before``, unless another has done so."""
    try:
        host_loop = HostLoop(asyncio.new_event_loop(), threading.current_thread())
    except BaseException as error:  # noqa: BLE001  it is the caller's
        start.end(error)
        return
    # One step, and no lock: the garbage collector may end a call here that needs a portal too.
    process.portal = process.successors.setdefault(before, host_loop)
    start.end()
    if process.successors[before] is host_loop:
        _run(host_loop)
    else:
        host_loop.loop.close()


def _run(host_loop: HostLoop) -> None:
    asyncio.set_event_loop(host_loop.loop)
    try:
        host_loop.loop.run_forever()
    finally:
        host_loop.loop.run_until_complete(_close_down(host_loop))
        host_loop.loop.close()


async def _close_down(host_loop: HostLoop) -> None:
    host_loop.refuse_calls()
    await asyncio.sleep(0)  # what was posted before that begins, and ends with all the rest
    tasks = asyncio.all_tasks() - {asyncio.current_task()} - host_loop.close_tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _wind_up(host_loop)


# The end of a host loop


def _watch(host_loop: HostLoop) -> AsyncGenerator[None]:
    """On its loop: have ``_wind_up`` run before the loop ends.

    A loop announces its end to its asynchronous generators only: it closes those that have begun.
    """

    async def until_the_end() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await _wind_up(host_loop)

    watch = until_the_end()
    with contextlib.suppress(StopIteration):
        watch.asend(None).send(None)
    return watch


async def _wind_up(host_loop: HostLoop) -> None:
    """On its loop, for the last time."""
    host_loop.refuse_calls()
    for function in _before_loop_ends:
        function(host_loop)
    await host_loop.wait_for_close_tasks()
    for _ in range(LAST_TURNS):
        await asyncio.sleep(0)
    _forget(host_loop)


def _forget(host_loop: HostLoop) -> None:
    host_loop.end()
    _process.watches.pop(host_loop, None)
    if _process.server is host_loop:
        _process.server = None
    for function in _after_loop_ended:
        function(host_loop)


def _stop_for_good() -> None:
    """At the exit of the interpreter, which lets no thread start any more."""
    _process.ending = True
    stop()


# Forks


def _in_child() -> None:
    _left_to_parent.append(vars(_process).copy())
    for host_loop in (_process.portal, _process.server, *_process.watches):
        if host_loop is not None:
            host_loop.forget_parent()
    _process.begin()
    for function in _after_fork:
        function()


atexit.register(_stop_for_good)
os.register_at_fork(after_in_child=_in_child)
