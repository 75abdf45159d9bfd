"""A streamed answer of a model, chunk by chunk."""

from __future__ import annotations

import asyncio
import warnings
from functools import partial
from types import TracebackType
from typing import Self

from llm_pool.calling.answers import OpenAnswer
from llm_pool.calling.call import Call
from llm_pool.calling.direct import Sender
from llm_pool.calling.structured import OutputType
from llm_pool.engine.clock import monotonic
from llm_pool.engine.content_timer import ContentTimer
from llm_pool.engine.loops.threads import in_thread
from llm_pool.engine.request import answer_too_large
from llm_pool.engine.scope import CancelScope
from llm_pool.exceptions import (
    InvalidResponse,
    PoolClosed,
    ProtocolError,
    ReadFailed,
    ReadTimeout,
    StreamInterrupted,
    TotalTimeout,
)
from llm_pool.providers.base import Provider, StreamReader
from llm_pool.providers.results import Chunk, Completion, Timing
from llm_pool.transports.call_site import call_site

__all__ = ["AsyncCompletionStream", "CompletionStream"]

MAX_ERROR_BODY = 64 * 1024  # bytes that are read of the body of an error
USAGE_SECONDS = 1.0  # the wait for what follows a complete answer, which is the usage
INTERRUPTIONS = (ProtocolError, ReadFailed)  # errors that break off the body of an answer
ENDS = (*INTERRUPTIONS, ReadTimeout, TotalTimeout)  # errors that do not matter once the answer is complete


class Stream:
    """One streamed call, which begins at the first ``step`` or ``astep``.

    Tasks call ``astep`` and threads call ``step``, one caller at a time. The connection is released when the
    stream ends or fails, or is closed, cancelled or garbage-collected.

    ``completion``  the whole answer if the stream has been read to its end, otherwise None
    ``text``        the text so far
    ``ended``       whether the stream has been read to its end, has failed or is closed
    ``request_id``  the provider's request id; None before the answer begins, or if no header has an id
    """

    def __init__(
        self,
        sender: Sender,
        provider: Provider,
        path: str,
        body: bytes,
        call: Call,
        *,
        output: OutputType | None = None,
    ) -> None:
        self.completion: Completion | None = None
        self._sender = sender
        self._provider = provider
        self._path = path
        self._body = body
        self._call = call
        self._output = output
        self._call_site = call_site()
        self._scope = CancelScope()  # cancels the call until the head of the answer has arrived
        self._timer = ContentTimer(sender.timeouts)
        self._answer: OpenAnswer | None = None
        self._reader: StreamReader | None = None
        self._began = 0.0
        self._bytes_left = sender.max_answer_bytes  # that the body may still have, decompressed
        self._first_token: float | None = None
        self._closed = False
        self._failure = ""  # the class of the exception that ended a step
        self._ready: list[Chunk] = []  # a list, because an empty deque takes half a kilobyte

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        return self._reader.partial if self._reader is not None else ""

    @property
    def ended(self) -> bool:
        """Whether the stream has been read to its end, has failed or is closed."""
        return self._closed

    @property
    def request_id(self) -> str | None:
        """The provider's request id; None before the answer begins, or if no header has an id."""
        return self._provider.request_id(self._answer.head) if self._answer is not None else None

    async def astep(self) -> list[Chunk]:
        """Wait for the next chunks and return them. Return [] at the end of the stream, or if it is closed.

        The first ``astep`` sends the request. Raises the errors that ``LLMPool`` lists, and
        ``StreamInterrupted`` if the body ends or breaks off before the answer is complete. A step that raises
        or is cancelled ends the stream: each later step raises ``StreamInterrupted``.
        """
        if self._ready or self._failure:
            return self._take_ready()
        try:
            answer = self._answer
            if answer is None and not self._closed:
                self._began = self._call.begin()
                answer = self._accept(
                    await self._sender.aopen(
                        self._path, self._body, self._call.marks, self._scope, timer=self._timer
                    )
                )
                if self._reader is None:
                    raise self._provider.error_from_response(answer.head, await _aread_error(answer))
            chunks: list[Chunk] = []
            while answer is not None and not chunks and not self._finish_if_complete():
                try:
                    data = await answer.aread()
                except ENDS:
                    if not self._is_whole():
                        raise
                    data = b""
                chunks = self._parse(data)
            return chunks
        except BaseException as error:
            if self._fail(error):
                raise
            return []
        finally:
            if self._closed:
                await self.aclose()

    def step(self) -> list[Chunk]:
        """``astep`` for sync code. Blocks the thread."""
        if self._ready or self._failure:
            return self._take_ready()
        try:
            answer = self._answer
            if answer is None and not self._closed:
                self._began = self._call.begin()
                answer = self._accept(
                    self._sender.open(
                        self._path, self._body, self._call.marks, self._scope, timer=self._timer
                    )
                )
                if self._reader is None:
                    raise self._provider.error_from_response(answer.head, _read_error(answer))
            chunks: list[Chunk] = []
            while answer is not None and not chunks and not self._finish_if_complete():
                try:
                    data = answer.read()
                except ENDS:
                    if not self._is_whole():
                        raise
                    data = b""
                chunks = self._parse(data)
            return chunks
        except BaseException as error:
            if self._fail(error):
                raise
            return []

    def close(self) -> None:
        """Cancel the call and release the connection. An iteration in another task or thread ends.

        Can be called from any thread, and more than once. Does nothing after the end of the stream.
        """
        self._closed = True
        self._ready.clear()
        self._scope.cancel()
        if self._answer is not None:
            if self._reader is not None and self._reader.finished:
                self._answer.mark_complete()
            self._answer.close()
        if self._began:
            self._end_call(asyncio.CancelledError())

    async def aclose(self) -> None:
        """``close`` for async code."""
        self.close()
        if self._answer is not None:
            await self._answer.aclose()

    def __del__(self) -> None:
        answer: OpenAnswer | None = getattr(self, "_answer", None)
        if answer is None:
            return
        answer.close()  # even if ``_closed``: an interrupt can have stopped ``close`` half-way
        if self._closed:
            return
        # Observers are the user's code: they must not run on the pool's event loop.
        answer.call_soon(partial(in_thread, self._call.cancel))
        message = f"a stream that was opened at {self._call_site} was neither read to its end nor closed"
        warnings.warn(message, ResourceWarning, source=self, stacklevel=2)  # last, because it may raise

    def __repr__(self) -> str:
        state = "ended" if self._closed else "open" if self._answer is not None else "not begun"
        return f"<{type(self).__name__} {state}, opened at {self._call_site}>"

    def _accept(self, answer: OpenAnswer) -> OpenAnswer:
        """Store and return ``answer``. Make a reader for its body if its status is 2xx.

        Close ``answer`` if another thread has closed the stream meanwhile.
        """
        self._answer = answer
        self._call.status_code = answer.head.status_code
        if self._closed:
            answer.close()
        if 200 <= answer.head.status_code < 300:
            head, choices = answer.head, self._call.choices
            self._reader = self._provider.stream_reader(
                head if choices == 1 else head._replace(choices=choices)
            )
        return answer

    def _take_ready(self) -> list[Chunk]:
        """Remove and return the chunks that ``next`` or ``anext`` has received, but not returned yet.

        Raises StreamInterrupted if an earlier step has failed: without it, the answer would look complete.
        """
        if self._failure:
            raise StreamInterrupted(
                f"this stream ended before its answer was complete: an earlier step raised {self._failure}. "
                "Start a new stream. asyncio.wait_for() cancels a late step; asyncio.wait() does not.",
                partial=self.text,
                request_id=self.request_id,
            )
        chunks, self._ready = self._ready, []
        return chunks

    def _finish_if_complete(self) -> bool:
        """If the provider has ended the answer, set ``completion`` and close the stream.

        Return whether the stream is closed. Raises ``InvalidOutput`` if the answer does not fit its type.
        """
        reader = self._reader
        if not self._closed and reader is not None and reader.finished:
            self.completion = reader.completion(self._timing())
            self._call.usage = self.completion.usage
            if self._output is not None:
                self.completion = self._output.parse(self.completion)
            self._end_call(None)
            self.close()
        return self._closed

    def _parse(self, data: bytes) -> list[Chunk]:
        reader = self._reader
        if reader is None or self._closed:  # closed by another thread
            return []
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise answer_too_large(self._sender.max_answer_bytes, self._provider.name)
        chunks = reader.feed(data) if data else reader.end()
        if self._first_token is None and any(chunk.text for chunk in chunks):
            self._first_token = monotonic()
        for chunk in chunks:
            if chunk.text or reader.is_content(chunk):
                self._timer.restart()
                break
        else:
            self._timer.stop(monotonic())
        if reader.is_complete:
            self._timer.finish_within(USAGE_SECONDS)
        return chunks

    def _is_whole(self) -> bool:
        """Return whether the provider has said that the answer is complete, so that no error can cut it."""
        return not self._closed and self._reader is not None and self._reader.is_complete

    def _timing(self) -> Timing:
        # When the caller has read the answer, which may have arrived earlier.
        self._call.marks.ended = monotonic()
        return self._call.timing(self._first_token)

    def _fail(self, error: BaseException) -> bool:
        """End the call after ``error``. Return True if the caller must raise ``error``.

        Returns False for the PoolClosed that follows when another task or thread has closed the stream.
        Raises StreamInterrupted instead of ``error`` if an answer with a 2xx status has begun and ``error``
        is one of ``INTERRUPTIONS``, but not an InvalidResponse.
        """
        was_closed = self._closed
        self._failure = "" if was_closed else type(error).__name__
        is_interruption = isinstance(error, INTERRUPTIONS) and not isinstance(error, InvalidResponse)
        interruption = self._reader.interruption(str(error)) if self._reader and is_interruption else None
        if was_closed and isinstance(error, PoolClosed):
            self.close()
            return False
        self._end_call(interruption or error)
        self.close()
        if interruption is not None:
            raise interruption from error
        return True

    def _end_call(self, error: BaseException | None) -> None:
        self._call.end(error, self._timing() if self._answer is not None else None)


class CompletionStream(Stream):
    """An iterator of ``Chunk`` objects. ``with pool.stream(...) as stream:`` closes it after the block.

    Iteration raises the errors that ``LLMPool`` lists. It raises ``StreamInterrupted``, with the text so far,
    if the body ends or breaks off before the provider has ended the answer.

    ``completion``  the whole answer if the stream has been read to its end, otherwise None
    ``text``        the text so far
    ``ended``       whether the stream has been read to its end, has failed or is closed
    ``request_id``  the provider's request id; None before the answer begins, or if no header has an id
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        if not self._ready:
            self._ready.extend(self.step())
        try:
            return self._ready.pop(0)
        except IndexError:  # the end, or another thread has just closed the stream
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCompletionStream(Stream):
    """``CompletionStream`` for async code: ``async for chunk in stream``, ``async with``."""

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


async def _aread_error(answer: OpenAnswer) -> bytes:
    body = b""
    while len(body) < MAX_ERROR_BODY and (data := await answer.aread()):
        body += data
    return body


def _read_error(answer: OpenAnswer) -> bytes:
    body = b""
    while len(body) < MAX_ERROR_BODY and (data := answer.read()):
        body += data
    return body
