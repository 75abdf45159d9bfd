"""The process's own event loop, for callers that have none that lasts.

A sync view, a Celery task, ``asyncio.run`` and ``async_to_sync`` have loops that end with the call, or no
loop at all. Their connections live on the portal: one daemon thread, started on first need. The loop of
an ASGI server lasts, and is a home of its own once ``adopt_server_loop`` names it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable

from .home import Home

__all__ = ["adopt_server_loop", "after_fork", "home_of_caller", "portal", "release_server_loop", "stop"]

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


_process = _Process()
_after_fork: list[Callable[[], None]] = []
_left_to_parent: list[object] = []  # kept from the garbage collector: their finalizers are the parent's


def portal() -> Home:
    """The portal's home, its thread started if need be."""
    process = _process
    with process.lock:
        if process.portal is None:
            process.portal, process.thread = _start()
        return process.portal


def home_of_caller() -> Home:
    """Where the connections of a caller on this event loop live: the server loop, or the portal."""
    server = _process.server
    if server is not None and server.is_here:
        return server
    return _process.portal or portal()


def adopt_server_loop() -> Home:
    """Make the running loop the server loop: it outlives every request."""
    process = _process
    loop = asyncio.get_running_loop()
    with process.lock:
        if process.server is None or process.server.loop is not loop:
            process.server = Home(loop)
        return process.server


def release_server_loop() -> None:
    """Forget the server loop, at its end."""
    _process.server = None


def stop() -> None:
    """End the portal's thread. The next caller starts another."""
    process = _process
    with process.lock:
        home, thread = process.portal, process.thread
        process.portal = process.thread = None
    if home is not None and thread is not None:
        home.loop.call_soon_threadsafe(home.loop.stop)
        thread.join()


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Have ``function`` called in the child after a fork, when the portal has been forgotten."""
    _after_fork.append(function)
    return function


def _start() -> tuple[Home, threading.Thread]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop,), name=THREAD_NAME, daemon=True)
    thread.start()
    return Home(loop), thread


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


def _in_child() -> None:
    _left_to_parent.append(vars(_process).copy())
    _process.begin()
    for function in _after_fork:
        function()


atexit.register(stop)
os.register_at_fork(after_in_child=_in_child)
