"""``event_stream``: a Django response that sends a stream to the browser, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream, Stream
from llm_pool.conf.observability import debugging
from llm_pool.exceptions import LLMPoolError, visitor_message
from llm_pool.providers.results import Chunk, Completion

__all__ = ["EventStreamResponse", "event_stream"]

logger = logging.getLogger("llm_pool.http")

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would buffer the events
    "Content-Encoding": "identity",  # GZipMiddleware would buffer, but skips a response with this header
}


def event_stream(
    stream: CompletionStream | AsyncCompletionStream, *, headers: Mapping[str, str] | None = None
) -> EventStreamResponse:
    """Return a response that sends ``stream`` to the browser as server-sent events.

    ``headers`` are added to the response's own, and replace those of the same name. The stream is closed when
    the browser disconnects.

    Events (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    ``data: {"text": "..."}``  a piece of text
    ``event: done``            the end of the answer: the whole text, model, finish_reason, tool_calls, usage
                               and timing (in seconds)
    ``event: error``           an error: its class name, and a sentence for the visitor

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
        own = _AsyncEvents(stream) if isinstance(stream, AsyncCompletionStream) else _SyncEvents(stream)
        super().__init__(own, content_type="text/event-stream")
        self._own = self._iterator
        for name, value in {**HEADERS, **(headers or {})}.items():
            self[name] = value
        self._resource_closers.append(stream.close)

    def __iter__(self) -> Iterator[bytes]:
        if self._iterator is self._own:
            return _SyncEvents(self._stream)
        content: Any = self.streaming_content  # a middleware has wrapped the iterator
        return _iterate_on_loop(content) if self.is_async else iter(content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._iterator is self._own:
            return _AsyncEvents(self._stream)
        content: Any = self.streaming_content
        return aiter(content) if self.is_async else self._iterate_in_threads(iter(content))

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


class _Events:
    """The events of one stream. The subclasses are iterators for sync and for async code.

    If a step is cancelled or interrupted, the next one returns an error event. A generator would end there,
    as if the answer were whole.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._ended = False

    def _last_event(self) -> bytes:
        """Return the event for the end of the answer; b"" if another thread or task has closed the stream."""
        completion = self._stream.completion
        return self._end(_done_event(completion) if completion is not None else b"")

    def _end(self, event: bytes) -> bytes:
        self._ended = True
        self._stream.close()
        return event


class _SyncEvents(_Events):
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            while chunks := self._stream.step():
                if text := _text_events(chunks):
                    return text
            event = self._last_event()
        except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
            event = self._end(_error_event(error))
        if not event:
            raise StopIteration
        return event


class _AsyncEvents(_Events):
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            while chunks := await self._stream.astep():
                if text := _text_events(chunks):
                    return text
            event = self._last_event()
        except Exception as error:  # noqa: BLE001  the response has begun: Django cannot send an error page
            event = self._end(_error_event(error))
        if not event:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Close the stream. Django calls this method when the browser disconnects."""
        self._ended = True
        await self._stream.aclose()


def _text_events(chunks: list[Chunk]) -> bytes:
    return b"".join(_event({"text": chunk.text}) for chunk in chunks if chunk.text)


def _done_event(completion: Completion) -> bytes:
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
