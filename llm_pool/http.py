"""``event_stream``: a Django response that sends a stream to the browser, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import asdict
from typing import Any, Self, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse

from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream, Stream
from llm_pool.conf.observability import debugging
from llm_pool.exceptions import LLMPoolError, visitor_message
from llm_pool.providers.results import Chunk

__all__ = ["EventStreamResponse", "event_stream"]

T = TypeVar("T")

logger = logging.getLogger("llm_pool.http")

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would buffer the events
    "Content-Encoding": "identity",  # GZipMiddleware would buffer, but skips a response with this header
}
HEARTBEAT = b":\n\n"  # a comment, which browsers ignore
HEARTBEAT_SECONDS = 5.0  # only the second send after a disconnect fails: a WSGI server notices within 10 s


def event_stream(
    stream: CompletionStream | AsyncCompletionStream, *, headers: Mapping[str, str] | None = None
) -> EventStreamResponse:
    """Return a response that sends ``stream`` to the browser as server-sent events.

    ``headers`` are added to the response's own, and replace those of the same name. The stream is closed when
    the browser disconnects. A HEAD request makes no call to the model.

    Events (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    ``data: {"text": "..."}``  a piece of text
    ``event: done``            the end of the answer: the whole text, model, finish_reason, tool_calls, usage
                               and timing (in seconds)
    ``event: error``           an error: its class name, and a sentence for the visitor

    While the model is silent, a comment is sent every ``HEARTBEAT_SECONDS``
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes): proxies close a silent
    connection, and a WSGI server notices only when it sends that the browser has disconnected.

    The message of the error is logged. It is sent to the browser only under ``DEBUG``, because it may
    describe the provider, the network and the pool.
    """
    return EventStreamResponse(stream, headers=headers)


class EventStreamResponse(StreamingHttpResponse):
    """A response that reads its stream with sync code under WSGI, and with async code under ASGI.

    ``StreamingHttpResponse`` would read a whole sync stream under ASGI, or a whole async stream under WSGI,
    before it sends the first byte.
    """

    # Attributes of Django's class that are missing in its type stubs.
    _iterator: Any
    _resource_closers: list[Callable[[], object]]

    def __init__(self, stream: Stream, *, headers: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        own = _AsyncEvents(stream) if isinstance(stream, AsyncCompletionStream) else _events(stream)
        super().__init__(own, content_type="text/event-stream")
        self._own = self._iterator
        for name, value in {**HEADERS, **(headers or {})}.items():
            self[name] = value
        self._resource_closers.append(stream.close)

    def __iter__(self) -> Iterator[bytes]:
        self._close_if_head()
        if self._iterator is self._own:
            return _events(self._stream)
        content: Any = self.streaming_content  # a middleware has wrapped the iterator
        return _iterate_on_loop(content) if self.is_async else iter(content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._close_if_head()
        if self._iterator is self._own:
            return _AsyncEvents(self._stream)
        content: Any = self.streaming_content
        return aiter(content) if self.is_async else self._iterate_in_threads(iter(content))

    def _close_if_head(self) -> None:
        """Close the stream, which then makes no call, if the response answers a HEAD request.

        Servers read the body of such a response, and drop it (RFC 9110, 9.3.2).
        """
        # Django gives a response no request, but adds the request's ``close`` to these functions.
        requests = [getattr(closer, "__self__", None) for closer in self._resource_closers]
        if any(isinstance(each, HttpRequest) and each.method == "HEAD" for each in requests):
            self._stream.close()

    async def _iterate_in_threads(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        def step() -> bytes | None:
            return next(pieces, None)

        try:
            while (piece := await sync_to_async(step)()) is not None:
                yield piece
        finally:
            self._stream.close()  # a thread that waits for the next token then stops waiting


def _iterate_on_loop(pieces: AsyncIterator[bytes]) -> Iterator[bytes]:
    async def step() -> bytes | None:
        return await anext(pieces, None)

    with asyncio.Runner() as runner:
        while (piece := runner.run(step())) is not None:
            yield piece


def _events(stream: Stream) -> Iterator[bytes]:
    try:
        for chunks in _steps(stream):
            if piece := HEARTBEAT if chunks is None else _text_events(chunks):
                yield piece
        if event := _done_event(stream):
            yield event
    except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
        yield _error_event(error)
    finally:
        stream.close()


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


class _AsyncEvents:
    """The events of a stream, for async code. Each step is a task.

    A step goes on if ``__anext__`` is cancelled, as a middleware does that sends pings of its own. The next
    ``__anext__`` then waits for the same step: nothing is lost, and the answer does not end early.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._step: asyncio.Task[list[Chunk]] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            step = self._step = self._step or asyncio.create_task(self._stream.astep())
            if not (await asyncio.wait([step], timeout=HEARTBEAT_SECONDS))[0]:
                return HEARTBEAT
            self._step = None
            if event := self._event_of(step):
                return event
        raise StopAsyncIteration

    def _event_of(self, step: asyncio.Task[list[Chunk]]) -> bytes:
        try:
            if chunks := step.result():
                return _text_events(chunks)
            event = _done_event(self._stream)
        except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
            event = _error_event(error)
        self._ended = True
        return event

    async def aclose(self) -> None:
        """Close the stream. Django calls this method when the browser disconnects."""
        self._ended = True
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._stream.aclose()


def _text_events(chunks: list[Chunk]) -> bytes:
    return b"".join(_event({"text": chunk.text}) for chunk in chunks if chunk.text)


def _done_event(stream: Stream) -> bytes:
    """Return the event for the end of the answer; b"" if another thread or task has closed the stream."""
    completion = stream.completion
    if completion is None:
        return b""
    return _event(
        {
            "text": completion.text,
            "model": completion.model,
            "finish_reason": completion.finish_reason,
            "tool_calls": [asdict(call) for call in completion.tool_calls],
            "usage": completion.usage
            and {
                "input_tokens": completion.usage.input_tokens,
                "output_tokens": completion.usage.output_tokens,
            },
            "timing": completion.timing and asdict(completion.timing),
        },
        "done",
    )


def _error_event(error: Exception) -> bytes:
    name = type(error).__name__
    if isinstance(error, LLMPoolError):
        logger.warning("a stream to the browser ended with %s: %s", name, error)
    else:
        logger.error("a stream to the browser ended with %s", name, exc_info=error)
    return _event({"error": name, "message": str(error) if debugging() else visitor_message(error)}, "error")


def _event(data: dict[str, Any], kind: str = "") -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
