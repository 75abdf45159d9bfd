"""The end of a response's stream, and the function that is called with it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async

from llm_pool.calling.stream import Stream
from llm_pool.exceptions import StreamInterrupted
from llm_pool.providers.results import Completion

__all__ = ["OnDone", "Outcome"]

OnDone = Callable[[Completion | Exception], object]
"""A function, sync or async, that gets the answer or the error of a stream."""

logger = logging.getLogger("llm_pool.http")

_tasks: set[asyncio.Task[None]] = set()  # the loop keeps no reference to a task


class Outcome:
    """How a stream has ended, for ``on_done``, which is called once.

    A server closes the response when the last byte has been sent or the browser has left, on a thread
    without a running event loop: then ``on_done`` is called. Without a server, as in Django's test clients,
    the iterator calls it at its end.

    ``value``  the answer or the error; None while the stream has not ended
    ``later``  whether the iterator leaves the call to its caller
    """

    def __init__(self, stream: Stream, on_done: OnDone | None) -> None:
        self.value: Completion | Exception | None = None
        self.later = False
        self._stream = stream
        self._on_done = on_done

    def discard(self) -> None:
        """Do not call ``on_done``: no call to the model is made."""
        self._on_done = None

    def report(self) -> None:
        """Call ``on_done``, for sync code. Log what it raises."""
        on_done, self._on_done = self._on_done, None
        if on_done is None:
            return
        try:
            result = on_done(self._final())
            if inspect.isawaitable(result):
                async_to_sync(_wait_for)(result)
        except Exception:
            logger.exception("on_done of event_stream has failed")

    async def areport(self) -> None:
        """``report`` for async code. A sync function runs in Django's thread, an async one on this loop."""
        if self._on_done is not None:  # otherwise no thread is needed
            await sync_to_async(self.report)()

    def close(self) -> None:
        """Call ``on_done`` when the response is closed. If this thread runs an event loop, in a task."""
        if asyncio._get_running_loop() is None:
            self.report()
        elif self._on_done is not None and not self.later:
            task = asyncio.create_task(self.areport())
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    def _final(self) -> Completion | Exception:
        if self.value is not None:
            return self.value
        return StreamInterrupted(
            "the response was closed before the answer was complete: the browser has left",
            self._stream.request_id,
            partial=self._stream.text,
        )


async def _wait_for(awaitable: Awaitable[Any]) -> None:
    await awaitable
