"""An event loop that hosts connections, and calls to it from other loops and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from llm_pool.exceptions import PoolClosed

__all__ = ["ENDED", "HostLoop", "wake"]

T = TypeVar("T")

ENDED = "the event loop of these connections has ended"
CLOSE_SECONDS = 1.0  # how long a loop waits for its connections to close before it ends


class HostLoop:
    """An event loop that hosts connections. Connections, timers and dials are used only on its own thread.

    ``loop``         asyncio's event loop
    ``thread``       the portal's thread; None for a server's loop
    ``closing``      whether the loop is about to end and accepts no new calls
    ``ended``        whether the loop has ended, so that nothing can be posted
    ``close_tasks``  tasks that close connections

    Threads that call the loop acquire no lock, since an interrupt could leave the lock locked (see
    ``threads``). They only set flags, add to sets and post. An interrupt cannot stop any of these actions
    half-way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread | None = None) -> None:
        self.loop = loop
        self.thread = thread
        self.closing = False
        self.ended = False
        self.close_tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[LoopCall[Any]] = set()  # the calls that have not ended

    @property
    def is_current(self) -> bool:
        """Whether the calling code runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function`` on the loop soon. Can be called from any thread.

        Raises PoolClosed if the loop has ended.
        """
        if self.ended:
            raise PoolClosed(ENDED)
        try:
            # In an empty context: the caller's context could keep objects of its request in memory.
            self.loop.call_soon_threadsafe(function, *args, context=Context())
        except RuntimeError as error:
            self.closing = self.ended = True
            raise PoolClosed(ENDED) from error

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop: now if the calling code runs on it, otherwise by ``post``."""
        if self.is_current:
            function()
        else:
            self.post(function)

    def run_before_end(self, close: Coroutine[Any, Any, None]) -> None:
        """Start ``close``, which closes a connection. Runs on the loop, which waits for it before it ends."""
        task = self.loop.create_task(close, context=Context())
        self.close_tasks.add(task)
        task.add_done_callback(self.close_tasks.discard)

    async def wait_for_close_tasks(self) -> None:
        """Wait for the tasks of ``run_before_end``, at most a second. Runs on the loop, before it ends."""
        if self.close_tasks:
            await asyncio.wait(self.close_tasks, timeout=CLOSE_SECONDS)

    def refuse_calls(self) -> None:
        """Accept no new calls. Calls that have been posted already still run."""
        self.closing = True

    def end(self) -> None:
        """Mark the loop as ended, and fail its calls. Can be called from any thread, and more than once."""
        self.closing = self.ended = True
        for call in list(self._calls):
            call.loop_ended()

    def forget_parent(self) -> None:
        """In the child of a fork: mark the parent's loop as ended. Its calls continue in the parent."""
        self.closing = self.ended = True

    async def arun(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Await ``function(*args)`` on this loop, and return its result. Can be called on any event loop.

        If the caller is cancelled, so is the function. If the function has returned by then, ``undo(result)``
        is called on this loop. Raises PoolClosed if this loop ends before the function.
        """
        if self.is_current:
            return await function(*args)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        call = LoopCall(self, function, args, undo, lambda: loop.call_soon_threadsafe(wake, done))
        try:
            self._submit(call)
            await done
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Do the same as ``arun`` for a thread without an event loop. Blocks the thread."""
        # Not an Event: it waits in Python code, where the exception of a signal handler could break it.
        done = threading.Lock()
        done.acquire()
        call = LoopCall(self, function, args, undo, done.release)
        try:
            self._submit(call)
            done.acquire()
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def _submit(self, call: LoopCall[Any]) -> None:
        # Add the call first, then read ``closing``: ``end`` sets ``closing`` first, and then fails all calls.
        self._calls.add(call)
        if self.closing:
            self._calls.discard(call)
            raise PoolClosed(ENDED)
        self.post(call.start)


class LoopCall(Generic[T]):
    """A coroutine that a host loop runs for a caller on another thread.

    The caller gets the result. If the caller has cancelled, the result is passed to ``undo``. The caller's
    thread calls ``result`` and ``cancel``; any thread can call ``loop_ended``. All other methods run on the
    host loop. ``notify`` wakes the caller. It raises RuntimeError if the caller's event loop is closed.
    """

    def __init__(
        self,
        host_loop: HostLoop,
        function: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[Any, ...],
        undo: Callable[[T], object] | None,
        notify: Callable[[], object],
    ) -> None:
        self._host_loop = host_loop
        self._function = function
        self._args = args
        self._undo = undo
        self._notify = notify
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False
        self._ended = False

    def start(self) -> None:
        """Start the coroutine, unless the caller has cancelled the call already."""
        if self._cancelled:
            self._host_loop._calls.discard(self)
            return
        if self._host_loop.closing:  # since the call was submitted
            self.loop_ended()
            return
        self._task = self._host_loop.loop.create_task(self._function(*self._args))
        self._task.add_done_callback(self._task_ended)

    def result(self) -> T:
        """Return the coroutine's result. Raises its error, or PoolClosed if the loop ended before it."""
        if self._task is None or not self._task.done():
            raise PoolClosed(ENDED)
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise PoolClosed("the pool's event loop was stopped during the call") from None

    def cancel(self) -> None:
        """Cancel the coroutine. If it has returned, pass its result to ``undo``."""
        self._cancelled = True
        if self._ended and self._undo is None:
            return
        try:
            self._host_loop.post(self._cancel_task)
        except PoolClosed:
            return  # the loop has ended, and the coroutine with it

    def loop_ended(self) -> None:
        """Wake the caller, because the loop has ended before this call. ``result`` then raises PoolClosed."""
        self._host_loop._calls.discard(self)
        if not self._ended:
            self._ended = True
            self._wake_caller()

    def _cancel_task(self) -> None:
        if self._task is None:
            return
        if not self._task.done():
            self._task.cancel()
        elif self._ended:  # otherwise ``_task_ended`` will undo the result
            self._undo_result(self._task)

    def _task_ended(self, task: asyncio.Task[T]) -> None:
        self._host_loop._calls.discard(self)
        if task.cancelled() or task.exception() is not None:
            self._undo = None  # without a result there is nothing to undo
        self._ended = True
        if self._cancelled or not self._wake_caller():
            self._undo_result(task)

    def _wake_caller(self) -> bool:
        try:
            self._notify()
        except RuntimeError:  # the caller's loop has closed
            return False
        return True

    def _undo_result(self, task: asyncio.Task[T]) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo(task.result())


def wake(future: asyncio.Future[None]) -> None:
    """Set the result of ``future``, unless it is done."""
    if not future.done():
        future.set_result(None)
