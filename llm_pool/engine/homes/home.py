"""An event loop that connections live on, and the way there for callers from elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from ..errors import PoolClosed

__all__ = ["Home"]

T = TypeVar("T")

ENDED = "the event loop of these connections has ended"
GOODBYE_SECONDS = 1.0  # how long a loop that ends waits for its connections


class Home:
    """One event loop. Connections, timers and dials of a home are touched on its loop only.

    ``shut``: it takes no new callers, for its loop is about to end. ``ended``: nobody finds the way any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.shut = False
        self.ended = False
        self.goodbyes: set[asyncio.Task[Any]] = set()
        self._lock = threading.RLock()  # re-entrant: the garbage collector may post in the middle of a post

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function`` on the loop soon, from any thread. Raises PoolClosed when the loop has ended."""
        with self._lock:
            if self.ended:
                raise PoolClosed(ENDED)
            try:
                # An empty context: nothing of the caller's request lives on in what the pool does.
                self.loop.call_soon_threadsafe(function, *args, context=Context())
            except RuntimeError as error:
                self.shut = self.ended = True
                raise PoolClosed(ENDED) from error

    def _receive(self, errand: Errand[Any]) -> None:
        with self._lock:
            if self.shut:
                raise PoolClosed(ENDED)
            self.post(errand.start)

    def begin_goodbye(self, goodbye: Coroutine[Any, Any, None]) -> None:
        """On the loop: run what a connection needs time for to close. The loop ends no sooner than it has."""
        task = self.loop.create_task(goodbye, context=Context())
        self.goodbyes.add(task)
        task.add_done_callback(self.goodbyes.discard)

    async def see_off(self) -> None:
        """On the loop, at its end: wait for the goodbyes."""
        if self.goodbyes:
            await asyncio.wait(self.goodbyes, timeout=GOODBYE_SECONDS)

    def refuse_callers(self) -> None:
        """Take no new callers. Those who came before get a turn of the loop yet."""
        with self._lock:
            self.shut = True

    def end(self) -> None:
        """Let nothing be posted any more."""
        with self._lock:
            self.shut = self.ended = True

    def disown(self) -> None:
        """In the child of a fork: the loop is the parent's, as is whoever holds the lock."""
        self._lock = threading.RLock()
        self.shut = self.ended = True

    async def arun(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Await ``function(*args)`` on this home, from any event loop.

        ``undo`` takes back a result that came too late for a caller that was cancelled.
        """
        if self.is_here:
            return await function(*args)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        errand = Errand(self, function, args, undo, lambda: loop.call_soon_threadsafe(_wake, arrived))
        try:
            self._receive(errand)
            await arrived
            return errand.result()
        except BaseException:
            errand.leave()
            raise

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Like ``arun``, from a plain thread, which it blocks."""
        # A bare lock: an Event waits in Python code, where an exception of a signal handler would break it.
        arrived = threading.Lock()
        arrived.acquire()
        errand = Errand(self, function, args, undo, arrived.release)
        try:
            self._receive(errand)
            arrived.acquire()
            return errand.result()
        except BaseException:
            errand.leave()
            raise


class Errand(Generic[T]):
    """A coroutine run on a home for a caller elsewhere. Its result is taken or undone, never lost."""

    def __init__(
        self,
        home: Home,
        function: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[Any, ...],
        undo: Callable[[T], object] | None,
        notify: Callable[[], object],
    ) -> None:
        self._home = home
        self._function = function
        self._args = args
        self._undo = undo
        self._notify = notify
        self._lock = threading.Lock()
        self._task: asyncio.Task[T] | None = None
        self._over = False  # the task has ended
        self._left = False  # the caller took the result, or will not

    def start(self) -> None:
        """On the home: begin, unless the caller has left already."""
        with self._lock:
            if self._left:
                return
            self._task = self._home.loop.create_task(self._function(*self._args))
        self._task.add_done_callback(self._ended)

    def result(self) -> T:
        """In the caller: take what came of it."""
        assert self._task is not None
        try:
            result = self._task.result()
        except asyncio.CancelledError:
            raise PoolClosed("the pool's event loop was stopped during the call") from None
        # The very last step: a KeyboardInterrupt before it leads to ``leave``, and none can come after it.
        self._left = True
        return result

    def leave(self) -> None:
        """In the caller, who goes without the result: the task is called off, or its result undone."""
        with self._lock:
            if self._left:
                return
            self._left = True
            task, over = self._task, self._over
        if task is None or (over and self._undo is None):
            return
        try:
            self._home.post(self._take_back if over else task.cancel)
        except PoolClosed:
            return  # the home has ended, and everything on it

    def _ended(self, task: asyncio.Task[T]) -> None:
        failed = task.cancelled() or task.exception() is not None
        with self._lock:
            self._over = True
            if failed:
                self._undo = None  # there is nothing to undo
            left = self._left
        if not left:
            try:
                self._notify()
                return
            except RuntimeError:
                self._left = True  # the caller's loop has closed without waiting
        self._take_back()

    def _take_back(self) -> None:
        assert self._task is not None
        if self._undo is not None:
            self._undo(self._task.result())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
