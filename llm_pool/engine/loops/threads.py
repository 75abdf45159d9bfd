"""Runs blocking work on threads, and holds locks so that no interrupt leaves them locked.

A sync caller's thread can be interrupted at almost every bytecode: by KeyboardInterrupt, Celery's
SoftTimeLimitExceeded, gunicorn's abort. From Python 3.14 on, an interrupt can come after ``with lock:`` has
acquired the lock and before its block is entered: the lock then stays locked for ever. So a sync caller's
thread acquires a shared lock only with ``hold``, and starts threads only with ``start_thread``. All other
work is done on the threads of event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from .greenlets import new_latch, original, patched_by

__all__ = [
    "ThreadResult",
    "hold",
    "in_thread",
    "locked",
    "new_lock",
    "new_rlock",
    "start_thread",
    "this_thread",
    "wake",
]

P = ParamSpec("P")
T = TypeVar("T")


def new_lock() -> Any:
    """Return a ``threading.Lock``: a real one, also under gevent and eventlet. Hold it only for moments."""
    return original("_thread", "allocate_lock")()


def locked() -> Any:
    """Return a ``new_lock`` that begins locked. One thread waits for it, and another releases it."""
    lock = new_lock()
    lock.acquire()
    return lock


def new_rlock() -> Any:
    """Return a ``threading.RLock``: a real one, also under gevent and eventlet. Hold it only for moments."""
    return original("_thread", "RLock")()


def this_thread() -> int:
    """Return the identity of the calling thread: of the real one, also under gevent and eventlet."""
    return int(original("_thread", "get_ident")())


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

    The thread is a real one, also under gevent and eventlet. Raises RuntimeError or MemoryError if the system
    can start no thread. ``Thread.start`` acquires locks of the ``threading`` module in Python code, where an
    interrupt could leave them locked. So ``Thread.start`` is called on another thread, which gets no
    interrupts.
    """
    start = original("_thread", "start_new_thread")
    if patched_by() is None:
        start(_start, (function, args, name))
    else:
        start(function, args)  # ``threading.Thread`` is a greenlet now


def _start(function: Callable[..., object], args: tuple[object, ...], name: str) -> None:
    try:
        threading.Thread(target=function, args=args, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):  # the system cannot start a second thread: use this one
        function(*args)


class ThreadResult(Generic[T]):
    """What a function on another thread returns or raises. Any number of loops and threads can wait for it.

    Not a ``concurrent.futures.Future``: gevent and eventlet replace its locks.
    """

    def __init__(self) -> None:
        self._outcome: Callable[[], T] | None = None
        self._waiters: list[Callable[[], object]] = []  # each wakes one; raises RuntimeError if it has ended

    @property
    def is_set(self) -> bool:
        """Whether the function has returned or raised."""
        return self._outcome is not None

    async def get(self) -> T:
        """Wait for the result and return it, or raise the function's error.

        Cancelling a task that waits does not cancel the function.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        # Before ``_outcome`` is read: ``set`` sets ``_outcome`` first.
        self._waiters.append(partial(loop.call_soon_threadsafe, wake, future))
        if self._outcome is None:
            await future
        assert self._outcome is not None
        return self._outcome()

    def wait(self) -> T:
        """Do the same as ``get`` for a thread or greenlet without an event loop."""
        latch = new_latch()
        self._waiters.append(latch.release)
        if self._outcome is None:
            latch.acquire()
        assert self._outcome is not None
        return self._outcome()

    def set(self, outcome: Callable[[], T]) -> None:
        """Wake all that wait. ``outcome`` returns the result, or raises the error."""
        self._outcome = outcome
        for wake_waiter in self._waiters:
            with contextlib.suppress(RuntimeError):  # that loop or thread has ended, and nothing waits on it
                wake_waiter()


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> ThreadResult[T]:
    """Call ``function`` on a new thread. Return its result, to be awaited.

    No executor is used: in an executor, a call that hangs would delay other calls and the end of the process.
    Raises RuntimeError or MemoryError if the system can start no thread.
    """
    result: ThreadResult[T] = ThreadResult()

    def run() -> None:
        try:
            value = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  ``get`` raises it
            failure = error

            def fail() -> T:
                raise failure

            result.set(fail)
        else:
            result.set(lambda: value)

    start_thread(run, name=f"llm_pool-{function.__name__}")
    return result


def wake(future: asyncio.Future[None]) -> None:
    """Set the result of ``future``, unless it is done."""
    if not future.done():
        future.set_result(None)
