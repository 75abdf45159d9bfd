"""What works as a real thread where gevent or eventlet have replaced the standard library.

Both can replace ("monkey-patch") ``threading``, ``socket``, ``select`` and others at any time, all or some of
them. A new thread is then a greenlet, and a blocking call lets the other greenlets of its thread run. The
portal cannot be a greenlet: asyncio would mark its loop as running in the application's thread, where Django
refuses to use the database while a loop runs. So the portal uses the ``original`` threads, locks and sockets,
and a greenlet waits for the portal at a ``Latch``, which lets the other greenlets run.
"""

from __future__ import annotations

import _thread
import os
import sys
from importlib import import_module
from typing import Any, Protocol

__all__ = ["Latch", "new_latch", "original", "patched_by"]

MODULES = ("threading", "socket", "select")  # gevent's names of what counts as patched, each by itself


class Latch(Protocol):
    """One thread waits until another opens it. A lock that begins locked is one.

    ``acquire``  waits at most ``timeout`` seconds (-1: without a limit); returns whether the latch is open
    ``release``  opens the latch, from any thread; raises RuntimeError if the waiting thread has ended
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...


def patched_by() -> str | None:
    """Return "gevent" or "eventlet" if it has replaced modules of the standard library, otherwise None."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(map(gevent.is_module_patched, MODULES)):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    return "eventlet" if eventlet is not None and eventlet.already_patched else None


def original(module: str, name: str) -> Any:
    """Return the attribute ``name`` of a standard module, as it is without gevent and eventlet."""
    patcher = patched_by()
    if patcher == "gevent":
        return sys.modules["gevent.monkey"].get_original(module, name)
    if patcher == "eventlet":
        return getattr(sys.modules["eventlet.patcher"].original(module), name)
    return getattr(import_module(module), name)


def new_latch() -> Latch:
    """Return a latch for the calling thread or greenlet to wait at."""
    patcher = patched_by()
    if patcher == "gevent":
        return _GeventLatch()
    if patcher == "eventlet":
        return _EventletLatch()
    # Not an Event: its ``wait`` is Python code, and a signal handler's exception could stop it half-way.
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


class _GeventLatch:
    def __init__(self) -> None:
        self._event = import_module("gevent.event").Event()
        self._open = False
        self._watcher: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        watcher = import_module("gevent").get_hub().loop.async_()
        watcher.start(self._event.set)
        self._watcher = watcher  # before ``_open`` is read: ``release`` sets ``_open`` first
        try:
            return self._open or bool(self._event.wait(None if timeout < 0 else timeout))
        finally:
            watcher.stop()
            watcher.close()

    def release(self) -> None:
        self._open = True
        if self._watcher is not None:
            try:
                self._watcher.send()
            except ValueError as error:
                raise RuntimeError("the hub of the waiting greenlet has ended") from error


class _EventletLatch:
    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        try:
            import_module("eventlet.hubs").trampoline(
                self._reader, read=True, timeout=None if timeout < 0 else timeout, timeout_exc=TimeoutError
            )
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        original("os", "write")(self._writer, b"\0")

    def __del__(self) -> None:
        # Not earlier: another file could have the number of the closed pipe while ``release`` writes to it.
        os.close(self._reader)
        os.close(self._writer)
