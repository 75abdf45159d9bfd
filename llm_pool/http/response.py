"""The response of ``event_stream``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse

from llm_pool.calling.stream import AsyncCompletionStream, Stream
from llm_pool.http.events import LAST_ID, Format
from llm_pool.http.outcome import OnDone
from llm_pool.http.reading import AsyncPieces, Source, pieces_of

__all__ = ["EventStreamResponse"]

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would buffer the events
    "Content-Encoding": "identity",  # GZipMiddleware would buffer, but skips a response with this header
}


class EventStreamResponse(StreamingHttpResponse):
    """A response that reads its stream with sync code under WSGI, and with async code under ASGI.

    ``StreamingHttpResponse`` would read a whole sync stream under ASGI, or a whole async stream under WSGI,
    before it sends the first byte.
    """

    # Attributes of Django's class that are missing in its type stubs.
    _handler_class: type | None  # the server's handler
    _iterator: Any
    _resource_closers: list[Callable[[], object]]

    def __init__(
        self,
        stream: Stream,
        events: Format,
        *,
        on_done: OnDone | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._status_code = 200
        self._stream = stream
        self._source = Source(stream, events, on_done)
        super().__init__(self._pieces(), content_type="text/event-stream")
        self._own = self._iterator
        for name, value in {**HEADERS, **events.headers, **(headers or {})}.items():
            self[name] = value
        self._resource_closers += [stream.close, self._source.outcome.close]

    @property
    def status_code(self) -> int:
        """204 for a browser that comes back after the last event of its answer.

        The server reads it when all middlewares have returned, and then it is known who asks.
        """
        return 204 if self._last_event_id() == LAST_ID else self._status_code

    @status_code.setter
    def status_code(self, value: int) -> None:
        self._status_code = value

    def __iter__(self) -> Iterator[bytes]:
        self._begin()
        if self._iterator is self._own:
            return pieces_of(self._source)
        content: Any = self.streaming_content  # a middleware has wrapped the iterator
        return self._iterate_on_loop(content) if self.is_async else iter(content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._begin()
        if self._iterator is self._own:
            return AsyncPieces(self._source)
        content: Any = self.streaming_content
        return aiter(content) if self.is_async else self._iterate_in_threads(iter(content))

    def close(self) -> None:
        """Close the stream, and call ``on_done``. Django calls this method after the last byte is sent."""
        self._close_if_no_call()  # some servers do not read the body of a response to HEAD
        super().close()

    def _pieces(self) -> Iterator[bytes] | AsyncIterator[bytes]:
        is_async = isinstance(self._stream, AsyncCompletionStream)
        return AsyncPieces(self._source) if is_async else pieces_of(self._source)

    def _request(self) -> HttpRequest | None:
        # Django gives a response no request, but adds the request's ``close`` to these functions.
        owners = (getattr(closer, "__self__", None) for closer in self._resource_closers)
        return next((owner for owner in owners if isinstance(owner, HttpRequest)), None)

    def _last_event_id(self) -> str:
        """Return the id of the last event that this browser got; "" for a browser that has not come back."""
        request = self._request()
        return request.headers.get("Last-Event-ID", "") if request is not None else ""

    def _begin(self) -> None:
        self._close_if_no_call()
        self._source.outcome.later = self._handler_class is not None

    def _close_if_no_call(self) -> None:
        """Close the stream, which then makes no call, for a HEAD request and a browser that comes back.

        Servers read the body of a response to HEAD, and drop it (RFC 9110, 9.3.2).
        """
        request = self._request()
        last_id = self._last_event_id()
        if last_id or (request is not None and request.method == "HEAD"):
            self._stream.close()
            self._source.outcome.discard()
            self._source.broken_off = last_id not in ("", LAST_ID)

    async def _iterate_in_threads(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        def step() -> bytes | None:
            return next(pieces, None)

        try:
            while (piece := await sync_to_async(step)()) is not None:
                yield piece
        finally:
            self._stream.close()  # a thread that waits for the next token then stops waiting

    def _iterate_on_loop(self, pieces: AsyncIterator[bytes]) -> Iterator[bytes]:
        async def step() -> bytes | None:
            return await anext(pieces, None)

        outcome = self._source.outcome
        has_server = outcome.later
        outcome.later = True  # sync code can use the ORM here, but not on the loop
        with asyncio.Runner() as runner:
            while (piece := runner.run(step())) is not None:
                yield piece
        if not has_server:
            outcome.report()
