"""Reads an event stream of JSON objects: what all providers' streams have in common."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

from llm_pool.exceptions import LLMPoolError, StreamInterrupted
from llm_pool.providers.base import Head, Provider, StreamReader
from llm_pool.providers.errors import MISFIT, mend
from llm_pool.providers.results import Chunk, Completion, Timing
from llm_pool.providers.sse import Event, EventParser

__all__ = ["EventStreamReader", "place"]

_loads = json.loads
_HEAD_KEPT = 4096  # bytes kept of a body that may turn out to be no event stream
_EVENT_STREAM_BEGINNINGS = (b":", b"data:", b"event:", b"id:", b"retry:")


class EventStreamReader(StreamReader):
    """Turns events into chunks and keeps their text. A provider's own says what an event means."""

    def __init__(self, provider: Provider, head: Head) -> None:
        self.finished = False
        self._failure: LLMPoolError | None = None
        self._provider = provider
        self._head = head
        self._parser = EventParser()
        self._beginning = b""
        self._any_event = False
        self._texts: list[str] = []
        self._half = ""  # a high surrogate whose other half is still to come

    @abstractmethod
    def _is_last(self, event: Event) -> bool:
        """Whether the provider says with this event that the answer is complete, or raises if it is not."""

    @abstractmethod
    def _chunk(self, raw: dict[str, Any], data: str) -> Chunk:
        """One event's chunk. Raises one of ``MISFIT`` where the event has another shape."""

    @abstractmethod
    def _is_complete(self) -> bool:
        """Whether a body that ended without the last event had all that matters."""

    @abstractmethod
    def _whole(self, request_id: str | None, timing: Timing | None) -> Completion:
        """The answer put together. Raises one of ``MISFIT`` where its parts make none."""

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def feed(self, data: bytes) -> list[Chunk]:
        """See ``StreamReader.feed``."""
        if not self._any_event and len(self._beginning) < _HEAD_KEPT:
            self._beginning += data[:_HEAD_KEPT]
        chunks = self._chunks(data)
        del data  # reports of errors show the variables of their frames, and it may repeat the key
        return self._delivered(chunks)

    def end(self) -> list[Chunk]:
        """See ``StreamReader.end``."""
        chunks = self._chunks(None)
        if not self.finished:
            if not self._is_complete():
                raise self._unfinished()
            self.finished = True
        return self._delivered(chunks)

    def completion(self, timing: Timing | None = None) -> Completion:
        """See ``StreamReader.completion``."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._whole(self._provider.request_id(self._head), timing)
        except MISFIT:
            what = "events that make no answer"
        raise self._provider.invalid_response(self._head, what, "", self.partial)

    def interruption(self, reason: str) -> StreamInterrupted:
        """See ``StreamReader.interruption``."""
        request_id = self._provider.request_id(self._head)
        mark = f" (request {request_id})" if request_id else ""
        return StreamInterrupted(
            f"{self._provider.name}'s stream{mark} was cut short: {reason.rstrip('.')}. "
            "What had come is in this error's partial; ask again for the rest.",
            partial=self.partial,
            request_id=request_id,
        )

    def _chunks(self, data: bytes | None) -> list[Chunk]:
        """The chunks that ``data``, or the end, completes. An error is kept, for ``_delivered``."""
        if self.finished:
            return []
        chunks: list[Chunk] = []
        try:
            for event in self._last_events() if data is None else self._parser.feed(data):
                if self.finished:
                    break
                self._any_event = True
                if self._is_last(event):
                    self.finished = True
                else:
                    chunks.append(self._read(event))
        except LLMPoolError as error:
            self.finished = True
            self._failure = error.with_traceback(None)  # its frames hold what may repeat the key
        return chunks

    def _delivered(self, chunks: list[Chunk]) -> list[Chunk]:
        """``chunks``: what came before an error is returned first, and the error raised next."""
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def _last_events(self) -> list[Event]:
        events = self._parser.end(lenient=True)
        return [event for event in events if event.data == "[DONE]" or _is_json(event.data)]

    def _read(self, event: Event) -> Chunk:
        data = event.data
        try:
            raw = _loads(data)
            if event.event == "error" or raw.get("error"):
                raise self._provider.error_from_object(self._head, raw, self.partial)
            return self._chunk(raw, data)
        except ValueError:
            what = "an event that is not JSON"
        except MISFIT:
            what = "an event of another shape"
        raise self._provider.invalid_response(self._head, what, data, self.partial)

    def _keep(self, text: str, data: str) -> str:
        """Add ``text``, which came in ``data``, to the whole; what of it is whole characters."""
        if type(text) is not str:
            raise TypeError("a text that is no str")
        if self._half or "\\u" in data:
            text = self._half + text
            self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
            text = mend(text.removesuffix(self._half))
        if text:
            self._texts.append(text)
        return text

    def _unfinished(self) -> Exception:
        seen = self._beginning.lstrip(b"\xef\xbb\xbf\r\n ")
        if not self._any_event and not seen.startswith(_EVENT_STREAM_BEGINNINGS):
            return self._no_event_stream()
        return self.interruption("its body ended before the provider said that the answer was complete")

    def _no_event_stream(self) -> Exception:
        try:
            raw = _loads(self._beginning)
            if raw.get("error"):
                return self._provider.error_from_object(self._head, raw)
        except (ValueError, AttributeError, RecursionError):
            pass
        what = "what is not an event stream" if self._beginning.strip() else "an empty body"
        return self._provider.invalid_response(self._head, what, self._beginning)


def place(index: Any) -> int:
    """``index``, by which a part of an answer is known. Raises ``TypeError`` where it is none."""
    if isinstance(index, str) and index.isdecimal():
        return int(index)
    if type(index) is not int:
        raise TypeError("an index that is no number")
    return index


def _is_json(data: str) -> bool:
    try:
        _loads(data)
    except (ValueError, RecursionError):
        return False
    return True
