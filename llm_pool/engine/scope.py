"""Cancels a call before the head of its response has arrived, from another task or thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from llm_pool.exceptions import PoolClosed

from .loops.host_loop import HostLoop

__all__ = ["CancelScope"]


class CancelScope:
    """Cancels one call: ``cancel`` makes the ``with`` block of ``on`` raise PoolClosed.

    ``cancel`` cancels the block's task, as ``asyncio.timeout`` does. If other code cancels the task, the
    block raises CancelledError.
    """

    __slots__ = ("_cancelled", "_has_cancelled_task", "_host_loop", "_task")

    def __init__(self) -> None:
        self._cancelled = False
        self._has_cancelled_task = False
        self._host_loop: HostLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Make the ``with`` block of ``on`` raise PoolClosed, now or when the block begins.

        Does nothing after the end of the block. Can be called from any thread, and more than once.
        """
        self._cancelled = True
        if self._task is None or self._host_loop is None:
            return
        with contextlib.suppress(PoolClosed):  # the loop has ended, and the task with it
            self._host_loop.post(self._cancel_task)

    @contextlib.contextmanager
    def on(self, host_loop: HostLoop) -> Iterator[None]:
        """Run a ``with`` block. ``cancel`` makes the block raise PoolClosed.

        The current task must run on ``host_loop``.
        """
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        self._host_loop, self._task = host_loop, task
        try:
            if self._cancelled:
                raise _cancelled_error()
            yield
        except asyncio.CancelledError:
            if self._has_cancelled_task and task.uncancel() <= cancellations:
                raise _cancelled_error() from None
            raise
        finally:
            self._task = None

    def _cancel_task(self) -> None:
        if self._task is not None and not self._has_cancelled_task:
            self._has_cancelled_task = True
            self._task.cancel()


def _cancelled_error() -> PoolClosed:
    return PoolClosed("the call was closed before its answer began")
