"""A coroutine that a host loop runs for a caller on another event loop or thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from llm_pool.exceptions import LLMPoolError, PoolClosed

__all__ = ["LoopCall"]

T = TypeVar("T")

AT_ONCE: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Lets a task run its first step where it is made, not one step of the loop later."""


class Loop(Protocol):
    """What a call uses of its host loop."""

    loop: asyncio.AbstractEventLoop
    closing: bool

    def post(self, function: Callable[..., object], *args: object) -> None: ...
    def forget(self, call: LoopCall[Any]) -> None: ...
    def ended_error(self) -> LLMPoolError: ...


class LoopCall(Generic[T]):
    """A coroutine that a host loop runs for a caller on another event loop or thread.

    ``undo``    is called with the result if the caller was cancelled or the caller's event loop is closed;
                None to do nothing
    ``notify``  wakes the caller; raises RuntimeError if the caller's event loop is closed

    ``ended``   whether the coroutine has ended, or will not be finished

    The caller's thread calls ``result`` and ``cancel``. Any thread can call ``loop_ended``. All other methods
    run on the host loop.
    """

    def __init__(
        self,
        host_loop: Loop,
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
        self._task: asyncio.Task[None] | None = None
        self._results: list[T] = []  # the coroutine's result, when it has returned
        self._error: BaseException | None = None  # its error, until ``result`` raises it
        self._cancelled = False
        self.ended = False

    def start(self) -> None:
        """Start the coroutine, unless the caller has cancelled the call already.

        If the host loop accepts no calls any more, the call fails with PoolClosed.
        """
        if self._cancelled:
            return
        if self._host_loop.closing:  # since the call was submitted
            self.loop_ended()
            return
        self._task = asyncio.Task(self._run(), loop=self._host_loop.loop, **AT_ONCE)

    def result(self) -> T:
        """Return the coroutine's result, or raise its error.

        Raises PoolClosed if the host loop ended first, or if the coroutine was cancelled; TransportFailed if
        the host loop is lost.
        """
        if self._results:
            return self._results[0]
        error, self._error = self._error, None  # its traceback refers to this object
        try:
            raise error or self._host_loop.ended_error()
        except asyncio.CancelledError:
            raise PoolClosed("the pool's event loop was stopped during the call") from None
        finally:
            del error

    def cancel(self) -> None:
        """Let the host loop cancel the coroutine, or pass its result to ``undo`` if it has returned."""
        self._cancelled = True
        if self.ended and (self._undo is None or not self._results):
            return
        try:
            self._host_loop.post(self._cancel_task)
        except PoolClosed:
            return  # the loop has ended, and the coroutine with it

    def loop_ended(self) -> None:
        """Wake the caller of a call that the loop will not finish. ``result`` then raises PoolClosed."""
        self._host_loop.forget(self)
        if not self.ended:
            self.ended = True
            self._wake_caller()

    def _cancel_task(self) -> None:
        if self._results:
            self._undo_result()
            return
        self._host_loop.forget(self)  # a task that is cancelled before its first step runs no step
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Await the coroutine, and wake the caller.

        In the task's last step: a callback of the task would be called one step of the loop later.
        """
        try:
            self._results.append(await self._function(*self._args))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  ``result`` raises it
            self._error = error
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._host_loop.forget(self)
            self.ended = True
            if self._cancelled or not self._wake_caller():
                self._undo_result()

    def _wake_caller(self) -> bool:
        try:
            self._notify()
        except RuntimeError:  # the caller's loop has closed
            return False
        return True

    def _undo_result(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None and self._results:
            undo(self._results[0])
