"""The process's own event loop, for callers that have none that lasts.

A sync view, a Celery task, ``asyncio.run`` and ``async_to_sync`` have loops that end with the call, or no
loop at all. Their connections live on the portal: one daemon thread, started on first need. The loop of
an ASGI server lasts, and is a home of its own once ``adopt_server_loop`` names it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable

from .errors import PoolClosed
from .home import Home

__all__ = [
    "adopt_server_loop",
    "after_fork",
    "home_of_caller",
    "portal",
    "release_server_loop",
    "stop",
    "when_home_ends",
]

THREAD_NAME = "llm_pool-portal"


class _Process:
    """What there is one of in a process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.lock = threading.Lock()
        self.portal: Home | None = None
        self.thread: threading.Thread | None = None
        self.server: Home | None = None
        self.watches: dict[
            Home, AsyncGenerator[None]
        ] = {}  # one for each loop that was ever adopted and lives


_process = _Process()
_after_fork: list[Callable[[], None]] = []
_when_home_ends: list[Callable[[Home], None]] = []
_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's


def portal() -> Home:
    """The portal's home, its thread started if need be."""
    process = _process
    with process.lock:
        if process.portal is None or process.portal.ended:
            process.portal, process.thread = _start()
        return process.portal


def home_of_caller() -> Home:
    """Where the connections of a caller on this event loop live: the server loop, or the portal."""
    server, home = _process.server, _process.portal
    if server is not None:
        if server.is_here:
            return server
        if server.loop.is_closed():
            release_server_loop()
    return portal() if home is None or home.ended else home


def adopt_server_loop() -> Home:
    """Make the running loop the server loop: it outlives every request. At its end it is forgotten."""
    process = _process
    server = process.server
    if server is not None and server.is_here:
        return server
    home = Home(asyncio.get_running_loop())
    with process.lock:
        server, process.server = process.server, home
        process.watches[home] = _watch(home)
    if server is not None and server.loop.is_closed():
        _stop_watching(server)
    return home


def release_server_loop() -> None:
    """Forget the server loop, at its end, and all that lives on it. From any thread."""
    process = _process
    with process.lock:
        home, process.server = process.server, None
    if home is None:
        return
    if home.loop.is_closed() or home.is_here:
        _stop_watching(home)
    else:
        with contextlib.suppress(PoolClosed):
            home.post(_stop_watching, home)


def stop() -> None:
    """End the portal's thread. The next caller starts another."""
    process = _process
    with process.lock:
        home, thread = process.portal, process.thread
        process.portal = process.thread = None
    if home is not None and thread is not None:
        with contextlib.suppress(PoolClosed):
            home.post(home.loop.stop)
        thread.join()


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Have ``function`` called in the child after a fork, when the portal has been forgotten."""
    _after_fork.append(function)
    return function


def when_home_ends(function: Callable[[Home], None]) -> Callable[[Home], None]:
    """Have ``function`` called with a home that ends: on its loop for the last time, or when that is gone."""
    _when_home_ends.append(function)
    return function


# The portal's thread


def _start() -> tuple[Home, threading.Thread]:
    home = Home(asyncio.new_event_loop())
    thread = threading.Thread(target=_run, args=(home,), name=THREAD_NAME, daemon=True)
    thread.start()
    return home, thread


def _run(home: Home) -> None:
    asyncio.set_event_loop(home.loop)
    try:
        home.loop.run_forever()
    finally:
        home.loop.run_until_complete(_wind_up(home))
        home.loop.close()


async def _wind_up(home: Home) -> None:
    _end(home)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# The end of a home


def _watch(home: Home) -> AsyncGenerator[None]:
    """On its loop: see to it that the home ends before the loop does.

    A loop says that it is about to end to its asynchronous generators only: it closes those that have begun.
    """

    async def until_the_end() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _end(home)

    watch = until_the_end()
    with contextlib.suppress(StopIteration):
        watch.asend(None).send(None)
    return watch


def _stop_watching(home: Home) -> None:
    watch = _process.watches.get(home)
    if watch is not None:
        with contextlib.suppress(StopIteration):
            watch.aclose().send(None)


def _end(home: Home) -> None:
    for tell in _when_home_ends:
        tell(home)
    home.end()
    _process.watches.pop(home, None)
    if _process.server is home:
        _process.server = None


# Forks


def _in_child() -> None:
    _left_to_parent.append(vars(_process).copy())
    for home in (_process.portal, _process.server, *_process.watches):
        if home is not None:
            home.disown()
    _process.begin()
    for function in _after_fork:
        function()


atexit.register(stop)
os.register_at_fork(after_in_child=_in_child)
