"""Blocking work off the event loops, and locks that survive an interrupt.

A sync caller's thread can be interrupted at almost every bytecode: by KeyboardInterrupt, Celery's
SoftTimeLimitExceeded, gunicorn's abort. From Python 3.14 on, an interrupt can come after ``with lock:`` has
acquired the lock and before its block is entered: then the lock stays locked for ever. So such a thread
acquires a shared lock by ``hold`` only, and starts threads by ``start_thread`` only. An event loop's thread
does everything else.
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

    An interrupt at any bytecode leaves the lock released. It may stop ``function`` half-way: so ``function``
    must only read, or a second call must complete what the first began.
    """
    try:
        try:
            lock.acquire()
            return function(*args, **kwargs)
        finally:
            _release(lock)
    finally:
        _release(lock)  # an interrupt may have stopped the first release


def _release(lock: Any) -> None:
    if lock._is_owned():
        lock.release()


def start_thread(function: Callable[..., object], *args: object, name: str) -> None:
    """Start a daemon thread. Raises RuntimeError if the system can start none.

    ``Thread.start`` acquires locks of the ``threading`` module in Python code. So it is called by a bare
    thread, which interrupts do not reach.
    """
    _thread.start_new_thread(_start, (function, args, name))


def _start(function: Callable[..., object], args: tuple[object, ...], name: str) -> None:
    try:
        threading.Thread(target=function, args=args, name=name, daemon=True).start()
    except RuntimeError:  # the system can start no second thread: use this one
        function(*args)


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call ``function`` on a thread of its own. Returns the future of its result.

    To cancel a task that awaits the future does not cancel the call. An executor is not used: a call that
    hangs would delay other calls, and the end of the process.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # now ``cancel`` has no effect: several callers may await it

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  the future raises it
            future.set_exception(error)
        else:
            future.set_result(result)

    start_thread(run, name=f"llm_pool-{function.__name__}")
    return future
