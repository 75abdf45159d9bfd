"""An event loop that hosts connections, and calls to it from other loops and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from llm_pool.exceptions import PoolClosed

__all__ = ["HostLoop"]

T = TypeVar("T")

ENDED = "the event loop of these connections has ended"
CLOSE_SECONDS = 1.0  # how long a loop that ends waits for its connections to close


class HostLoop:
    """One event loop. Its connections, timers and dials are touched on its own thread only.

    ``closing``: the loop is about to end and accepts no new calls. ``ended``: nothing can be posted any more.
    ``thread``: the portal's own; None for a server's loop.

    Threads that call in take no lock: an interrupt could leave it taken (see ``threads``). They set flags,
    add to sets and post, each of which is one step, and the loop's thread decides.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread | None = None) -> None:
        self.loop = loop
        self.thread = thread
        self.closing = False
        self.ended = False
        self.close_tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[LoopCall[Any]] = set()  # those that have not ended

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function`` on the loop soon, from any thread. Raises PoolClosed after the loop has ended."""
        if self.ended:
            raise PoolClosed(ENDED)
        try:
            # An empty context: nothing of the caller's request lives on in what the pool does.
            self.loop.call_soon_threadsafe(function, *args, context=Context())
        except RuntimeError as error:
            self.closing = self.ended = True
            raise PoolClosed(ENDED) from error

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop: now if the caller runs there, or else soon. See ``post``."""
        if self.is_current:
            function()
        else:
            self.post(function)

    def run_before_end(self, closing: Coroutine[Any, Any, None]) -> None:
        """On the loop: run ``closing``, which a connection needs to close. The loop's end waits for it."""
        task = self.loop.create_task(closing, context=Context())
        self.close_tasks.add(task)
        task.add_done_callback(self.close_tasks.discard)

    async def wait_for_close_tasks(self) -> None:
        """On the loop, at its end: wait for what ``run_before_end`` has started."""
        if self.close_tasks:
            await asyncio.wait(self.close_tasks, timeout=CLOSE_SECONDS)

    def refuse_calls(self) -> None:
        """Accept no new calls. The loop still runs those that were posted before."""
        self.closing = True

    def end(self) -> None:
        """Fail the calls that the loop will not run any more. From any thread, any number of times."""
        self.closing = self.ended = True
        for call in list(self._calls):
            call.loop_ended()

    def forget_parent(self) -> None:
        """In the child of a fork: the loop is the parent's."""
        self.closing = self.ended = True

    async def arun(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Await ``function(*args)`` on this loop, from any event loop.

        ``undo(result)`` is called on this loop if the caller was cancelled before it had the result.
        """
        if self.is_current:
            return await function(*args)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        call = LoopCall(self, function, args, undo, lambda: loop.call_soon_threadsafe(_wake, arrived))
        try:
            self._submit(call)
            await arrived
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
        """``arun`` for a plain thread, which it blocks."""
        # A bare lock: an Event waits in Python code, and an exception of a signal handler would break it.
        arrived = threading.Lock()
        arrived.acquire()
        call = LoopCall(self, function, args, undo, arrived.release)
        try:
            self._submit(call)
            arrived.acquire()
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def _submit(self, call: LoopCall[Any]) -> None:
        self._calls.add(call)  # first: ``end`` then sees either this call, or this sees ``closing``
        if self.closing:
            self._calls.discard(call)
            raise PoolClosed(ENDED)
        self.post(call.start)


class LoopCall(Generic[T]):
    """A coroutine that a host loop runs for a caller elsewhere. Its result is delivered or undone.

    ``result`` and ``cancel`` are the caller's; all else happens on the host loop.
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
        """Begin, unless the caller has cancelled already."""
        if self._cancelled:
            self._host_loop._calls.discard(self)
            return
        self._task = self._host_loop.loop.create_task(self._function(*self._args))
        self._task.add_done_callback(self._task_ended)

    def result(self) -> T:
        """The coroutine's result, or the exception that it raised."""
        if self._task is None or not self._task.done():
            raise PoolClosed(ENDED)
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise PoolClosed("the pool's event loop was stopped during the call") from None

    def cancel(self) -> None:
        """Cancel the coroutine, or undo its result."""
        self._cancelled = True
        if self._ended and self._undo is None:
            return
        try:
            self._host_loop.post(self._cancel_task)
        except PoolClosed:
            return  # the loop has ended, and everything on it

    def loop_ended(self) -> None:
        """The loop has ended without this call's end, or without its start."""
        self._host_loop._calls.discard(self)
        if not self._ended:
            self._ended = True
            self._wake_caller()

    def _cancel_task(self) -> None:
        if self._task is None:
            return
        if not self._task.done():
            self._task.cancel()
        elif self._ended:  # otherwise ``_task_ended`` is about to run
            self._take_back(self._task)

    def _task_ended(self, task: asyncio.Task[T]) -> None:
        self._host_loop._calls.discard(self)
        if task.cancelled() or task.exception() is not None:
            self._undo = None  # there is nothing to undo
        self._ended = True
        if self._cancelled or not self._wake_caller():
            self._take_back(task)

    def _wake_caller(self) -> bool:
        try:
            self._notify()
        except RuntimeError:  # the caller's loop has closed without waiting
            return False
        return True

    def _take_back(self, task: asyncio.Task[T]) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo(task.result())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
