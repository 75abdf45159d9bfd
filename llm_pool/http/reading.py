"""Read a stream and yield what its response sends: with a thread under WSGI, with tasks under ASGI."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Self, TypeVar

from django.db import connections

from llm_pool.calling.stream import Stream
from llm_pool.conf.observability import debugging
from llm_pool.exceptions import LLMPoolError, StreamInterrupted, visitor_message
from llm_pool.http.events import Format
from llm_pool.http.outcome import OnDone, Outcome
from llm_pool.providers.results import Chunk

__all__ = ["COMMENT", "AsyncPieces", "Source", "pieces_of"]

T = TypeVar("T")

logger = logging.getLogger("llm_pool.http")

COMMENT = b":\n\n"  # browsers ignore it
HEARTBEAT_SECONDS = 5.0  # only the second send after a disconnect fails: a WSGI server notices within 10 s


class Source:
    """A stream, and what its response sends of it.

    ``stream``      the stream
    ``outcome``     how the stream has ended
    ``broken_off``  whether the browser has come back in the middle of an answer: the stream is closed, and
                    all that is sent is an error
    """

    def __init__(self, stream: Stream, events: Format, on_done: OnDone | None) -> None:
        self.stream = stream
        self.outcome = Outcome(stream, on_done)
        self.broken_off = False
        self._events = events

    def step(self, chunks: list[Chunk]) -> bytes:
        """Return the events for the chunks of a step, or ``COMMENT``."""
        return self._events.chunks(chunks).encode() or COMMENT

    def end(self) -> bytes:
        """Return the events for the end of the stream; b"" if another thread or task has closed it."""
        if (completion := self.stream.completion) is not None:
            self.outcome.value = completion
            return self._events.done(completion).encode()
        if self.broken_off:
            return self.failure(
                StreamInterrupted("its answer had broken off, and the browser asked for the rest")
            )
        return b""

    def failure(self, error: Exception) -> bytes:
        """Return the events for ``error``, and log it."""
        self.outcome.value = error
        name = type(error).__name__
        if isinstance(error, LLMPoolError):
            logger.warning("a stream to the browser ended with %s: %s", name, error)
        else:
            logger.error("a stream to the browser ended with %s", name, exc_info=error)
        return self._events.failed(name, str(error) if debugging() else visitor_message(error)).encode()


def pieces_of(source: Source) -> Iterator[bytes]:
    """Yield what the response sends, for sync code."""
    try:
        for chunks in _steps(source.stream):
            yield COMMENT if chunks is None else source.step(chunks)
        if piece := source.end():
            yield piece
    except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
        yield source.failure(error)
    finally:
        source.stream.close()
    if not source.outcome.later:
        source.outcome.report()


def _steps(stream: Stream) -> Iterator[list[Chunk] | None]:
    """Yield the chunks of each step of ``stream``, and None for each ``HEARTBEAT_SECONDS`` that it waits.

    The steps run on a thread of their own, because a thread that waits cannot send.
    """
    # A thread and queues that gevent and eventlet replace: the steps run the user's code.
    wanted: queue.Queue[bool] = queue.Queue()
    done: queue.Queue[list[Chunk] | BaseException] = queue.Queue()

    def run() -> None:
        while wanted.get():
            try:
                done.put(stream.step())
            except BaseException as error:  # noqa: BLE001  the other thread raises it
                done.put(error)
        connections.close_all()  # an API_KEY callable or an observer may have opened one

    threading.Thread(target=copy_context().run, args=(run,), name="llm_pool-events", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            while (step := _get(done)) is None:
                yield None
            if isinstance(step, BaseException):
                raise step
            if not step:
                return
            yield step
    finally:
        wanted.put(False)


def _get(done: queue.Queue[T]) -> T | None:
    try:
        return done.get(timeout=HEARTBEAT_SECONDS)
    except queue.Empty:
        return None


class AsyncPieces:
    """What the response sends, for async code. Each step of the stream is a task.

    A step goes on if ``__anext__`` is cancelled, as a middleware does that sends pings of its own. The next
    ``__anext__`` then waits for the same step: nothing is lost, and the answer does not end early.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stream = source.stream
        self._step: asyncio.Task[list[Chunk]] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            step = self._step = self._step or asyncio.create_task(self._stream.astep())
            if not await _ends_within(HEARTBEAT_SECONDS, step):
                return COMMENT
            self._step = None
            if piece := self._piece_of(step):
                return piece
        if not self._source.outcome.later:
            await self._source.outcome.areport()
        raise StopAsyncIteration

    def _piece_of(self, step: asyncio.Task[list[Chunk]]) -> bytes:
        try:
            if chunks := step.result():
                return self._source.step(chunks)
            piece = self._source.end()
        except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
            piece = self._source.failure(error)
        self._ended = True
        return piece

    async def aclose(self) -> None:
        """Close the stream. Django calls this method when the browser disconnects."""
        self._ended = True
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._stream.aclose()


async def _ends_within(seconds: float, step: asyncio.Task[list[Chunk]]) -> bool:
    """Wait for ``step``, which goes on if this is cancelled. Return whether it has ended within ``seconds``.

    ``asyncio.wait`` does the same for sets of tasks, and makes a step a quarter slower.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_step: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    step.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        step.remove_done_callback(wake)
    return step.done()
