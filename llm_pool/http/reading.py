"""Read a stream and yield what its response sends: with a thread under WSGI, with a task under ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Self, TypeVar

from django.db import connections

from llm_pool.calling.stream import Stream
from llm_pool.conf.observability import debugging
from llm_pool.engine.loops.threads import wake
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
    """What the response sends, for async code. A task reads the stream, a step ahead of the response.

    The task goes on if ``__anext__`` is cancelled, as a middleware does that sends pings of its own. The next
    ``__anext__`` then waits for the same step: nothing is lost, and the answer does not end early.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader: _Reader | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._ended:
            reader = self._reader = self._reader or _Reader(self._source.stream)
            try:
                if chunks := await reader.step():
                    return self._source.step(chunks)
                if chunks is None:
                    return COMMENT
                piece = self._source.end()
            except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
                piece = self._source.failure(error)
            self._ended = True
            if piece:
                return piece
        if not self._source.outcome.later:
            await self._source.outcome.areport()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the stream. Django calls this method when the browser disconnects."""
        self._ended = True
        if self._reader is not None:
            await self._reader.aclose()
        await self._source.stream.aclose()

    def __del__(self) -> None:
        if self._reader is not None:
            self._reader.cancel_threadsafe()


class _Reader:
    """Reads a stream in a task, which is at most two steps ahead: one is stored, and one waits for its place.

    A task for each step would double the turns of the event loop for each token. The task does not keep its
    ``AsyncPieces`` in memory, so that a response which is neither read to its end nor closed ends the call.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._chunks: list[Chunk] = []  # the stored step
        self._arrival: asyncio.Future[None] | None = None  # ``step`` waits for the next step
        self._room: asyncio.Future[None] | None = None  # the task waits until the stored step is taken
        self._silent_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task = self._loop.create_task(self._read())
        self._task.add_done_callback(self._ended)

    async def step(self) -> list[Chunk] | None:
        """Return the chunks of the next step, [] at the end of the stream, or None after a heartbeat.

        A heartbeat is due after ``HEARTBEAT_SECONDS`` without a step. Raises the error of the stream.
        """
        if not self._chunks and not self._task.done():
            self._arrival = self._loop.create_future()
            self._silent_since = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)
            try:
                await self._arrival
            finally:
                self._arrival = None
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            if self._room is not None:
                wake(self._room)
            return chunks
        if not self._task.done():
            return None
        self._task.result()
        return []

    async def aclose(self) -> None:
        """End the task, and wait for its end."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def cancel_threadsafe(self) -> None:
        """End the task, from any thread. Do nothing if its loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _read(self) -> None:
        while chunks := await self._stream.astep():
            if self._chunks:
                self._room = self._loop.create_future()
                await self._room
            self._chunks = chunks
            if self._arrival is not None:
                wake(self._arrival)

    def _heartbeat(self) -> None:
        """End the wait if it is long enough, or set the timer again: one timer serves many waits."""
        self._timer = None
        if self._arrival is None:
            return
        left = self._silent_since + HEARTBEAT_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._heartbeat)
        else:
            wake(self._arrival)

    def _ended(self, _task: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._arrival is not None:
            wake(self._arrival)
