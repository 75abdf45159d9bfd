"""Blocking work off the event loops, and locks that survive an interrupt.

A sync caller's thread can be interrupted at almost every bytecode: by KeyboardInterrupt, Celery's
SoftTimeLimitExceeded, gunicorn's abort. From Python 3.14 on that includes the moment between the acquire and
the block of a ``with lock:``, which leaves the lock taken for ever. So such a thread takes a shared lock by
``hold`` only, and starts threads by ``start_thread``; everything else it hands to an event loop's thread.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

__all__ = ["hold", "in_thread", "start_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def hold(lock: Any, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` with ``lock``, a ``threading.RLock`` that this thread does not hold yet.

    An interrupt at any bytecode leaves the lock free. It may stop ``function`` half-way: let that only read,
    or be such that calling it again completes it.
    """
    try:
        try:
            lock.acquire()
            return function(*args, **kwargs)
        finally:
            _release(lock)
    finally:
        _release(lock)  # an interrupt may have come into the first


def _release(lock: Any) -> None:
    if lock._is_owned():
        lock.release()


def start_thread(function: Callable[..., object], *args: object, name: str) -> None:
    """Start a daemon thread. Raises RuntimeError if the system has none to give.

    ``Thread.start`` takes locks of the ``threading`` module in Python code, so a bare thread calls it, which
    no interrupt reaches.
    """
    _thread.start_new_thread(_start, (function, args, name))


def _start(function: Callable[..., object], args: tuple[object, ...], name: str) -> None:
    try:
        threading.Thread(target=function, args=args, name=name, daemon=True).start()
    except RuntimeError:  # the system has no second thread to give: this one will do
        function(*args)


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call ``function`` on a thread of its own. Cancelling what awaits the future does not cancel the call.

    No executor is used: a call that hangs delays neither other calls nor the end of the process.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # several callers may await it, and what runs cannot be cancelled

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  it is the caller's
            future.set_exception(error)
        else:
            future.set_result(result)

    start_thread(run, name=f"llm_pool-{function.__name__}")
    return future
