"""How a call that is still on its way is called off from another task or thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from .errors import PoolClosed
from .homes.home import Home

__all__ = ["CancelScope"]


class CancelScope:
    """What is awaited ``on`` a home ends with PoolClosed once ``cancel`` has been called. For one call.

    It interrupts the task as ``asyncio.timeout`` does, so that the task's own cancellation is still its own.
    """

    __slots__ = ("_cancelled", "_home", "_interrupted", "_task")

    def __init__(self) -> None:
        self._cancelled = False
        self._interrupted = False
        self._home: Home | None = None
        self._task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """From any thread, any number of times, before, during or after."""
        self._cancelled = True
        if self._task is None or self._home is None:
            return
        with contextlib.suppress(PoolClosed):  # its loop has ended, and the task with it
            self._home.post(self._interrupt)

    @contextlib.contextmanager
    def on(self, home: Home) -> Iterator[None]:
        """In the task that is to be interrupted, which runs on ``home``."""
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        self._home, self._task = home, task
        try:
            if self._cancelled:
                raise _called_off()
            yield
        except asyncio.CancelledError:
            if self._interrupted and task.uncancel() <= cancellations:
                raise _called_off() from None
            raise
        finally:
            self._task = None

    def _interrupt(self) -> None:
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()


def _called_off() -> PoolClosed:
    return PoolClosed("the call was closed before its answer began")
