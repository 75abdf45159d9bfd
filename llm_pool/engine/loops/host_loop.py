"""An event loop that hosts connections, and calls to it from other loops and threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from math import inf
from typing import Any, TypeVar

from llm_pool.exceptions import LLMPoolError, PoolClosed, TotalTimeout, TransportFailed, UnsupportedEventLoop

from ..clock import monotonic
from .greenlets import new_latch
from .loop_call import LoopCall
from .process import notice_fork
from .threads import this_thread, wake

__all__ = ["ENDED", "HostLoop", "LoopEnded", "running_loop"]

T = TypeVar("T")

ENDED = "the event loop of these connections has ended"
PATIENCE = 10.0  # seconds that callers wait for a sign of life of their host loop, again and again
OVERDUE_SECONDS = (
    1.0  # how long after its total timeout a caller still waits for the host loop to end the call
)
CLOSE_SECONDS = 1.0  # how long a loop waits for its connections to close before it ends


class LoopEnded(PoolClosed):
    """The call was not submitted, since its host loop has ended. Another host loop can run the call."""


class HostLoop:
    """An event loop that hosts connections. The connections, timers and dials are used only on its thread.

    ``loop``         asyncio's event loop
    ``thread``       the portal's thread, if it is a ``threading.Thread``, otherwise None
    ``thread_lock``  a lock that this thread releases when the loop has ended; None for the server loop
    ``closing``      whether the loop is about to end and accepts no new calls
    ``ended``        whether the loop has ended, so that nothing can be posted
    ``lost``         whether the loop does not respond, or cannot be woken
    ``close_tasks``  tasks that close connections; the loop waits for them before it ends

    A thread that calls the loop acquires no shared lock, since an interrupt could leave the lock locked (see
    ``threads``). It only sets flags, adds to sets and posts. An interrupt cannot stop any of these actions
    half-way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_lock: Any = None) -> None:
        self.loop = loop
        # Not ``current_thread``: for other threads it makes an object that stays.
        threads = () if thread_lock is None else threading.enumerate()
        self.thread = next((thread for thread in threads if thread.ident == this_thread()), None)
        self.thread_lock = thread_lock
        self.closing = False
        self.ended = False
        self.lost = False
        self.close_tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[LoopCall[Any]] = set()  # the calls that have not ended
        self._watched_from: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @property
    def is_current(self) -> bool:
        """Whether the calling code runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function(*args)`` on the loop soon. Can be called from any thread.

        Raises PoolClosed if the loop has ended.
        """
        if self.ended:
            raise PoolClosed(ENDED)
        try:
            # In an empty context: the caller's context could keep objects of its request in memory.
            self.loop.call_soon_threadsafe(function, *args, context=Context())
        except RuntimeError as error:
            self.lost = self.closing = self.ended = True
            raise PoolClosed(ENDED) from error

    def post_if_open(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop soon, also if the loop has ended; do nothing if it is closed.

        A lost loop counts as ended, and can go on later.
        """
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, context=Context())

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop: now if the calling code runs on it, otherwise by ``post``."""
        if self.is_current:
            function()
        else:
            self.post(function)

    def run_before_end(self, close: Coroutine[Any, Any, None]) -> None:
        """Start ``close``, a coroutine that closes a connection. Must be called on the loop.

        Before the loop ends, it waits for ``close``, at most ``CLOSE_SECONDS``.
        """
        task = self.loop.create_task(close, context=Context())
        self.close_tasks.add(task)
        task.add_done_callback(self.close_tasks.discard)

    async def wait_for_close_tasks(self) -> None:
        """Wait for ``close_tasks``, at most ``CLOSE_SECONDS``. Runs on the loop, before it ends."""
        if self.close_tasks:
            await asyncio.wait(self.close_tasks, timeout=CLOSE_SECONDS)

    def refuse_calls(self) -> None:
        """Accept no new calls. A call that was submitted but has not started fails with PoolClosed.

        Started calls go on, and ``post`` still works.
        """
        self.closing = True

    def end(self) -> None:
        """Mark the loop as ended. Its calls fail with PoolClosed.

        Can be called from any thread, and more than once.
        """
        self.closing = self.ended = True
        for call in list(self._calls):
            call.loop_ended()

    def lose(self) -> None:
        """Mark the loop as lost: it does not respond. Its calls fail with TransportFailed.

        Can be called from any thread. If the loop responds later, it ends.
        """
        self.lost = True
        with contextlib.suppress(PoolClosed):
            self.post(self.loop.stop)
        self.end()

    def forget(self, call: LoopCall[Any]) -> None:
        """Called when ``call`` has ended."""
        self._calls.discard(call)

    def ended_error(self) -> LLMPoolError:
        """Return the error of a call that the loop will not finish."""
        if not self.lost:
            return PoolClosed(ENDED)
        return TransportFailed(
            f"the event loop of the pool's connections has not responded for {PATIENCE:g} s. Look for code "
            "that blocks its thread. The next call uses a new loop"
        )

    def forget_parent(self) -> None:
        """In the child of a fork: mark the parent's loop as ended. Its calls continue in the parent."""
        self.closing = self.ended = True

    def arun(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
        total: float | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Return a coroutine that awaits ``function(*args)`` on this loop, and returns its result.

        Can be called on any event loop, and must be awaited there.

        If the caller is cancelled, the function is cancelled too. If the function has returned by then, or if
        the caller's loop is closed, ``undo(result)`` is called on this loop. Raises the function's error,
        PoolClosed if this loop accepts no calls or ends before the function returns, or TransportFailed if
        this loop does not respond for ``PATIENCE`` seconds. ``total``: the total timeout in seconds, which
        the function itself applies. If this loop does not respond, the caller gets TotalTimeout
        ``OVERDUE_SECONDS`` later.
        """
        if asyncio._get_running_loop() is self.loop:
            return function(*args)
        return self._arun(function, args, undo, total)

    async def _arun(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[Any, ...],
        undo: Callable[[T], object] | None,
        total: float | None,
    ) -> T:
        loop = running_loop()
        done: asyncio.Future[None] = loop.create_future()
        timer = None if total is None else loop.call_later(total + OVERDUE_SECONDS, wake, done)
        call = LoopCall(self, function, args, undo, lambda: loop.call_soon_threadsafe(wake, done))
        try:
            self._submit(call)
            if loop not in self._watched_from:
                self._watched_from.add(loop)
                self._watch(loop, [True])
            await done
            if timer is not None and not call.ended:
                raise _overdue(total)
            return call.result()
        except BaseException:
            call.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
        total: float | None = None,
    ) -> T:
        """Do the same as ``arun`` for a thread without an event loop. Blocks the thread.

        Raises TransportFailed on the thread of this loop, which would wait for itself.
        """
        if self.is_current:
            raise TransportFailed(
                "a sync call on the event loop of the pool's connections would wait for itself: make it on a "
                "thread of its own"
            )
        done = new_latch()
        call = LoopCall(self, function, args, undo, done.release)
        signs = [True]
        overdue_at = inf if total is None else monotonic() + total + OVERDUE_SECONDS
        try:
            self._submit(call)
            while not done.acquire(True, min(PATIENCE, max(0.0, overdue_at - monotonic()))):
                if monotonic() >= overdue_at:
                    raise _overdue(total)
                self._check(signs)
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def _watch(self, loop: asyncio.AbstractEventLoop, signs: list[bool]) -> None:
        """Check for signs of life every ``PATIENCE`` seconds, while calls are in progress. Runs on ``loop``.

        One watch is enough for all callers on ``loop``: a lost loop ends all of its calls.
        """
        if self.ended or not self._calls:
            self._watched_from.discard(loop)
            return
        self._check(signs)
        loop.call_later(PATIENCE, self._watch, loop, signs, context=Context())

    def _check(self, signs: list[bool]) -> None:
        """Ask for a sign of life, or mark this loop as lost if the one asked for before did not come.

        The loop had ``PATIENCE`` seconds for it, in which the caller's thread or loop was running too: the
        time while the process was stopped does not count as silence.
        """
        if self.ended:
            return
        if not signs:
            self.lose()
            return
        signs.clear()
        with contextlib.suppress(PoolClosed):
            self.post(signs.append, True)

    def _submit(self, call: LoopCall[Any]) -> None:
        notice_fork()
        # Add the call first, then read ``closing``: ``end`` sets ``closing`` first, and then fails all calls.
        self._calls.add(call)
        if self.closing:
            self.forget(call)
            raise LoopEnded(ENDED)
        try:
            self.post(call.start)
        except PoolClosed:
            self.forget(call)
            raise LoopEnded(ENDED) from None


def _overdue(total: float | None) -> TotalTimeout:
    return TotalTimeout(
        f"the call took longer than its total timeout of {total} s, and the event loop of the pool's "
        "connections does not respond. Look for code that blocks its thread"
    )


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of asyncio. Raises UnsupportedEventLoop if none is running."""
    loop = asyncio._get_running_loop()
    if loop is None:
        raise UnsupportedEventLoop(
            "async calls need an event loop of asyncio, and none is running here. Under trio, run the server "
            "or the program on asyncio (hypercorn -k asyncio), or make sync calls in a thread."
        )
    return loop
