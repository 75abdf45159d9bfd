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

from ..errors import PoolClosed
from .home import Home

__all__ = [
    "adopt_server_loop",
    "after_fork",
    "after_home_ended",
    "before_home_ends",
    "home_of_caller",
    "is_on_server_loop",
    "is_portal",
    "portal",
    "release_server_loop",
    "stop",
]

THREAD_NAME = "llm_pool-portal"
LAST_TURNS = 5  # of an event loop: a TLS connection that is cut takes four to close its socket and say so


class _Process:
    """What there is one of in a process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.lock = threading.RLock()  # re-entrant: the garbage collector may end a call here
        self.ending = False
        self.portal: Home | None = None
        self.thread: threading.Thread | None = None
        self.server: Home | None = None
        self.watches: dict[Home, AsyncGenerator[None]] = {}  # of each loop that was adopted


_process = _Process()
_after_fork: list[Callable[[], None]] = []
_before_home_ends: list[Callable[[Home], None]] = []
_after_home_ended: list[Callable[[Home], None]] = []
_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's


def portal() -> Home:
    """The portal's home, its thread started if need be. Raises PoolClosed when the process is ending."""
    process = _process
    server, home = process.server, process.portal
    if server is not None and server.loop.is_closed():
        _forget(server)
    if home is None or home.shut:
        with process.lock:
            if process.ending:
                raise PoolClosed("the process is ending")
            home = process.portal
            if home is None or home.shut:
                home = _start(home)
    return home


def is_portal(home: object) -> bool:
    """Whether that is the portal's home, and not a server loop's."""
    return home is _process.portal


def is_on_server_loop() -> bool:
    """Whether the caller runs on the loop that serves all requests."""
    server = _process.server
    return server is not None and server.is_here


def home_of_caller() -> Home:
    """Where the connections of a caller on this event loop live: the server loop, or the portal."""
    server = _process.server
    if server is not None and server.is_here and not server.shut:
        return server
    return portal()


def adopt_server_loop() -> Home:
    """Make the running loop the server loop: it outlives every request. At its end it is forgotten."""
    process = _process
    server = process.server
    if server is not None and server.is_here and not server.shut:
        return server
    with process.lock:
        home = next((home for home in process.watches if home.is_here and not home.shut), None)
        if home is None:
            home = Home(asyncio.get_running_loop())
            process.watches[home] = _watch(home)
        process.server = home
        dead = [home for home in process.watches if home.loop.is_closed()]
    for each in dead:
        _forget(each)
    return home


def release_server_loop() -> None:
    """Have no server loop. What lives on it stays there, until that loop ends."""
    _process.server = None


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


def before_home_ends(function: Callable[[Home], None]) -> Callable[[Home], None]:
    """Have ``function`` called with a home that ends, on its loop, which turns a few times more."""
    _before_home_ends.append(function)
    return function


def after_home_ended(function: Callable[[Home], None]) -> Callable[[Home], None]:
    """Have ``function`` called with a home that is no more. It may be called again."""
    _after_home_ended.append(function)
    return function


# The portal's thread


def _start(before: Home | None) -> Home:
    """Under the lock: a portal in the place of the one ``before``."""
    process = _process
    home = Home(asyncio.new_event_loop())
    if process.portal is not None and process.portal is not before:
        home.loop.close()  # the garbage collector has ended a call meanwhile, which needed a portal too
        return process.portal
    process.portal = home
    process.thread = threading.Thread(target=_run, args=(home,), name=THREAD_NAME, daemon=True)
    process.thread.start()
    return home


def _run(home: Home) -> None:
    asyncio.set_event_loop(home.loop)
    try:
        home.loop.run_forever()
    finally:
        home.loop.run_until_complete(_close_down(home))
        home.loop.close()


async def _close_down(home: Home) -> None:
    home.refuse_callers()
    await asyncio.sleep(0)  # what was posted before that begins, and ends with all the rest
    tasks = asyncio.all_tasks() - {asyncio.current_task()} - home.goodbyes
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _wind_up(home)


# The end of a home


def _watch(home: Home) -> AsyncGenerator[None]:
    """On its loop: see to it that the home ends before the loop does.

    A loop says that it is about to end to its asynchronous generators only: it closes those that have begun.
    """

    async def until_the_end() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await _wind_up(home)

    watch = until_the_end()
    with contextlib.suppress(StopIteration):
        watch.asend(None).send(None)
    return watch


async def _wind_up(home: Home) -> None:
    """On its loop, for the last time."""
    home.refuse_callers()
    for tell in _before_home_ends:
        tell(home)
    await home.see_off()
    for _ in range(LAST_TURNS):
        await asyncio.sleep(0)
    _forget(home)


def _forget(home: Home) -> None:
    home.end()
    _process.watches.pop(home, None)
    if _process.server is home:
        _process.server = None
    for tell in _after_home_ended:
        tell(home)


def _stop_for_good() -> None:
    """At the exit of the interpreter, which lets no thread start any more."""
    _process.ending = True
    stop()


# Forks


def _in_child() -> None:
    _left_to_parent.append(vars(_process).copy())
    for home in (_process.portal, _process.server, *_process.watches):
        if home is not None:
            home.disown()
    _process.begin()
    for function in _after_fork:
        function()


atexit.register(_stop_for_good)
os.register_at_fork(after_in_child=_in_child)
