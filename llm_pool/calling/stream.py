"""A model's answer as it comes, chunk by chunk."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import TracebackType
from typing import Self

from llm_pool.calling.answers import Source
from llm_pool.calling.direct import Sender
from llm_pool.calling.record import Call
from llm_pool.engine.loops.threads import in_thread
from llm_pool.engine.scope import CancelScope
from llm_pool.exceptions import InvalidResponse, PoolClosed, ProtocolError, ReadFailed
from llm_pool.providers.base import Provider, StreamReader
from llm_pool.providers.results import Chunk, Completion, Timing
from llm_pool.transports.call_site import call_site

__all__ = ["AsyncCompletionStream", "CompletionStream"]

MAX_ERROR_BODY = 64 * 1024
BROKEN_OFF = (ProtocolError, ReadFailed)


class Stream:
    """One streamed call, begun at the first step. A task takes ``astep``, a thread ``step``; one at a time.

    However it ends, its connection is freed: read out, closed, cancelled, failed or garbage-collected.
    """

    def __init__(self, sender: Sender, provider: Provider, path: str, body: bytes, call: Call) -> None:
        self.completion: Completion | None = None
        self._sender = sender
        self._provider = provider
        self._path = path
        self._body = body
        self._call = call
        self._opened_at = call_site()
        self._opening = CancelScope()
        self._source: Source | None = None
        self._reader: StreamReader | None = None
        self._began = 0.0
        self._first_token: float | None = None
        self._closed = False
        self._ready: list[Chunk] = []  # an empty deque would take half a kilobyte of each stream

    @property
    def text(self) -> str:
        """The text so far."""
        return self._reader.partial if self._reader is not None else ""

    @property
    def request_id(self) -> str | None:
        """By what name the provider knows this call, once it has answered."""
        return self._provider.request_id(self._source.head) if self._source is not None else None

    async def astep(self) -> list[Chunk]:
        """The next chunks, one or more; none at the end."""
        if self._ready:
            return self._left_over()
        try:
            source = self._source
            if source is None and not self._closed:
                self._began = self._call.begin()
                source = self._opened(
                    await self._sender.aopen(self._path, self._body, self._call.marks, self._opening)
                )
                if self._reader is None:
                    raise self._refused(source, [data async for data in _apieces(source)])
            chunks: list[Chunk] = []
            while source is not None and not chunks and self._goes_on():
                chunks = self._fed(await source.aread())
            return chunks
        except BaseException as error:
            if self._fails(error):
                raise
            return []
        finally:
            if self._closed:
                await self.aclose()

    def step(self) -> list[Chunk]:
        """``astep`` for a plain thread."""
        if self._ready:
            return self._left_over()
        try:
            source = self._source
            if source is None and not self._closed:
                self._began = self._call.begin()
                source = self._opened(
                    self._sender.open(self._path, self._body, self._call.marks, self._opening)
                )
                if self._reader is None:
                    raise self._refused(source, list(_pieces(source)))
            chunks: list[Chunk] = []
            while source is not None and not chunks and self._goes_on():
                chunks = self._fed(source.read())
            return chunks
        except BaseException as error:
            if self._fails(error):
                raise
            return []

    def close(self) -> None:
        """Free the connection. From any thread, any number of times; a reader ends as at the stream's end."""
        self._closed = True
        self._ready.clear()
        self._opening.cancel()
        if self._source is not None:
            if self._reader is not None and self._reader.finished:
                self._source.mark_complete()
            self._source.close()
        if self._began:
            self._end_call(asyncio.CancelledError())

    async def aclose(self) -> None:
        """``close``, in a task of its own event loop."""
        self.close()
        if self._source is not None:
            await self._source.aclose()

    def __del__(self) -> None:
        source: Source | None = getattr(self, "_source", None)
        if source is None:
            return
        source.close()  # first: where warnings are errors the last line raises
        if self._closed:  # even then: what interrupted its close may have come before this
            return
        source.call_soon(
            partial(in_thread, self._call.cancel)
        )  # observers are the user's: not on a loop of ours
        message = f"a stream that was opened at {self._opened_at} was neither read to its end nor closed"
        warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "ended" if self._closed else "open" if self._source is not None else "not begun"
        return f"<{type(self).__name__} {state}, opened at {self._opened_at}>"

    def _opened(self, source: Source) -> Source:
        self._source = source
        self._call.status_code = source.head.status_code
        if self._closed:  # closed while the call was on its way
            source.close()
        if 200 <= source.head.status_code < 300:
            self._reader = self._provider.stream_reader(source.head)
        return source

    def _left_over(self) -> list[Chunk]:
        """What came together with a chunk that was taken by itself."""
        chunks, self._ready = self._ready, []
        return chunks

    def _goes_on(self) -> bool:
        """Whether there is more to read. What follows the provider's last word is not waited for."""
        reader = self._reader
        if not self._closed and reader is not None and reader.finished:
            self.completion = reader.completion(self._timing())
            self._call.usage = self.completion.usage
            self._end_call(None)
            self.close()
        return not self._closed

    def _fed(self, data: bytes) -> list[Chunk]:
        reader = self._reader
        if reader is None or self._closed:  # closed by another thread
            return []
        chunks = reader.feed(data) if data else reader.end()
        if self._first_token is None and any(chunk.text for chunk in chunks):
            self._first_token = time.monotonic()
        return chunks

    def _timing(self) -> Timing:
        now = time.monotonic()
        self._call.marks.ended = now  # the caller's end: the last bytes may have waited for it
        timing = self._call.timing(self._first_token)
        if timing is None:
            first = None if self._first_token is None else self._first_token - self._began
            return Timing(first_token=first, total=now - self._began)
        return timing

    def _fails(self, error: BaseException) -> bool:
        """Free the connection. Whether the caller is to see ``error``; raises what he is to see instead."""
        was_closed = self._closed
        broken_off = isinstance(error, BROKEN_OFF) and not isinstance(error, InvalidResponse)
        interruption = self._reader.interruption(str(error)) if self._reader and broken_off else None
        if was_closed and isinstance(error, PoolClosed):
            self.close()
            return False  # by another thread while this one was reading
        self._end_call(interruption or error)
        self.close()
        if interruption is not None:
            raise interruption from error
        return True

    def _end_call(self, error: BaseException | None) -> None:
        self._call.end(error, self._timing() if self._source is not None else None)

    def _refused(self, source: Source, pieces: list[bytes]) -> Exception:
        return self._provider.error_from_response(source.head, b"".join(pieces))


class CompletionStream(Stream):
    """``for chunk in stream``; ``stream.completion`` has the whole answer once it has ended, None before.

    Iterating raises what ``LLMPool.complete`` raises, and ``StreamInterrupted`` with the partial text where
    the stream ends before its provider said so.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        if not self._ready:
            self._ready.extend(self.step())
        try:
            return self._ready.pop(0)
        except IndexError:  # the end, or another thread has closed it in this moment
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCompletionStream(Stream):
    """``async for chunk in stream``; otherwise as ``CompletionStream``."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if not self._ready:
            self._ready.extend(await self.astep())
        try:
            return self._ready.pop(0)
        except IndexError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _apieces(source: Source) -> AsyncIterator[bytes]:
    """The body of an error, as much of it as anybody reads."""
    size = 0
    while size < MAX_ERROR_BODY and (data := await source.aread()):
        size += len(data)
        yield data


def _pieces(source: Source) -> Iterator[bytes]:
    size = 0
    while size < MAX_ERROR_BODY and (data := source.read()):
        size += len(data)
        yield data
