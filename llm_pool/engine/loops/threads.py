"""Runs blocking work on threads, and holds locks so that no interrupt leaves them locked.

A sync caller's thread can be interrupted at almost every bytecode: by KeyboardInterrupt, Celery's
SoftTimeLimitExceeded, gunicorn's abort. From Python 3.14 on, an interrupt can come after ``with lock:`` has
acquired the lock and before its block is entered: the lock then stays locked for ever. So a sync caller's
thread acquires a shared lock only with ``hold``, and starts threads only with ``start_thread``. All other
work is done on the threads of event loops.
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
    """Call ``function`` with ``lock`` held, and return its result.

    ``lock`` is an RLock that this thread does not hold yet. The lock is released even if an interrupt comes,
    at any bytecode. The interrupt can stop ``function`` half-way. So ``function`` must only read, or a second
    call must complete what the first call began.
    """
    try:
        try:
            lock.acquire()
            return function(*args, **kwargs)
        finally:
            _release(lock)
    finally:
        _release(lock)  # an interrupt can have stopped the first release


def _release(lock: Any) -> None:
    if lock._is_owned():
        lock.release()


def start_thread(function: Callable[..., object], *args: object, name: str) -> None:
    """Start a daemon thread that calls ``function(*args)``, with ``name`` as the thread's name.

    Raises RuntimeError if the system can start no thread. ``Thread.start`` acquires locks of the
    ``threading`` module in Python code, where an interrupt could leave them locked. So ``Thread.start`` is
    called on another thread, which gets no interrupts.
    """
    _thread.start_new_thread(_start, (function, args, name))


def _start(function: Callable[..., object], args: tuple[object, ...], name: str) -> None:
    try:
        threading.Thread(target=function, args=args, name=name, daemon=True).start()
    except RuntimeError:  # the system cannot start a second thread: use this one
        function(*args)


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call ``function`` on a new thread. Return a future of its result.

    Cancelling a task that awaits the future does not cancel the call. No executor is used: in an executor, a
    call that hangs would delay other calls and the end of the process. Raises RuntimeError if the system can
    start no thread.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # makes ``cancel`` do nothing: several callers can await it

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  the future raises it
            future.set_exception(error)
        else:
            future.set_result(result)

    start_thread(run, name=f"llm_pool-{function.__name__}")
    return future
