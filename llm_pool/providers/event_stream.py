"""The base class of the readers of event streams whose events are JSON objects."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

from llm_pool.exceptions import LLMPoolError, StreamInterrupted
from llm_pool.providers.base import StreamReader
from llm_pool.providers.error_objects import error_in
from llm_pool.providers.errors import SHAPE_ERRORS
from llm_pool.providers.head import Head
from llm_pool.providers.json_provider import JSONProvider
from llm_pool.providers.results import Chunk, Completion, Timing
from llm_pool.providers.sse import UNFRAMED, Event, EventParser, looks_like_events
from llm_pool.providers.texts import repair_surrogates

__all__ = ["EventStreamReader", "parse_index"]

_decode_first = json.JSONDecoder().raw_decode  # ``json.loads`` looks for white space, at each event
_MAX_BEGINNING = 4096  # bytes of a body that are kept, for the error if the body is not an event stream
_DONE = "[DONE]"
_SPECIAL = frozenset({"error", UNFRAMED})


class EventStreamReader(StreamReader):
    """Turns server-sent events with JSON into chunks, and keeps their text.

    A subclass reads the fields of one API's events.
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        self.finished = False
        self._failure: LLMPoolError | None = None
        self._provider = provider
        self._head = head
        self._parser = EventParser()
        self._beginning = b""
        self._has_events = False
        self._texts: list[str] = []
        self._high_surrogate = ""  # half a character at the end of the text, until its other half arrives

    @abstractmethod
    def _chunk_from(self, raw: dict[str, Any], kind: str, data: str) -> Chunk | None:
        """Return the chunk for an event, or None if it adds nothing.

        ``raw``   the event's data, parsed
        ``kind``  the event's type in the event stream
        ``data``  the event's data

        Set ``is_complete`` when the provider has said that the answer is complete, and ``finished`` when
        nothing else can follow. Ask ``_is_ignored`` about an event that is no part of an answer. Raises one
        of ``SHAPE_ERRORS`` if the event does not have the API's format.
        """

    @abstractmethod
    def _read_done(self) -> None:
        """Read the event "[DONE]".

        Set ``finished`` if it completes the answer. Raises ``InvalidResponse`` if the events before it do not
        form an answer.
        """

    @abstractmethod
    def _merged_answer(self) -> dict[str, Any]:
        """Return the answer merged from the events so far, in the shape that it has without a stream."""

    @property
    def partial(self) -> str:
        """See ``StreamReader.partial``."""
        return "".join(self._texts)

    def feed(self, data: bytes) -> list[Chunk]:
        """See ``StreamReader.feed``."""
        if not self._has_events and not self.finished and len(self._beginning) < _MAX_BEGINNING:
            self._beginning += data[:_MAX_BEGINNING]
        chunks = [] if self.finished else self._read_chunks(data)
        del data  # error reports show the local variables of each frame, and the data may contain the key
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def end(self) -> list[Chunk]:
        """See ``StreamReader.end``."""
        chunks = [] if self.finished else self._read_chunks(None)
        if not self.finished:
            if not self.is_complete:
                raise self._incomplete_error()
            self.finished = True
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def completion(self, timing: Timing | None = None) -> Completion:
        """See ``StreamReader.completion``."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._provider.completion_from(self._merged_answer(), self._head, timing, self.partial)
        except SHAPE_ERRORS:
            what = "events that do not form an answer"
        raise self._provider.invalid_response(self._head, what, "", self.partial)

    def interruption(self, reason: str) -> StreamInterrupted:
        """See ``StreamReader.interruption``."""
        request_id = self._provider.request_id(self._head)
        identifier = f" (request {request_id})" if request_id else ""
        return StreamInterrupted(
            f"{self._provider.name}'s stream{identifier} was cut short: {reason.rstrip('.')}. "
            "The text received so far is in this error's partial; ask again for the rest.",
            partial=self.partial,
            request_id=request_id,
        )

    def _read_chunks(self, data: bytes | None) -> list[Chunk]:
        """Return the chunks that ``data`` completes; with None, those that the end of the body completes.

        An LLMPoolError is not raised, but stored in ``_failure``.
        """
        chunks: list[Chunk] = []
        try:
            for event in self._last_events() if data is None else self._parser.feed(data):
                if self.finished:
                    break
                chunk = self._read_event(event)
                if chunk is not None:
                    self._has_events = True
                    chunks.append(chunk)
                elif event.event != UNFRAMED:
                    self._has_events = True
        except LLMPoolError as error:
            self.finished = True
            if not self.is_complete:  # what follows a whole answer does not matter
                self._failure = error.with_traceback(None)  # its frames hold data, which may contain the key
        return chunks

    def _last_events(self) -> list[Event]:
        """Return a list with the last event if no blank line follows it; [] if there is no such event.

        An event with incomplete JSON is left out.
        """
        events = self._parser.end(lenient=True)
        return [event for event in events if event.data.strip() == _DONE or _is_json(event.data)]

    def _read_event(self, event: Event) -> Chunk | None:
        data, kind, _, _ = event
        try:
            if data[:1] != "{":
                data = data.strip()
                if self._is_without_json(data, kind):
                    return None
            raw, end = _decode_first(data)
            if end != len(data) and data[end:].strip():
                raise ValueError("more follows the JSON")
            if "error" in data or kind in _SPECIAL:
                self._raise_error_in(raw, kind)
            return self._chunk_from(raw, kind, data)
        except ValueError:
            what = "an event that is not JSON"
        except SHAPE_ERRORS:
            what = "an event of an unexpected shape"
        if kind == UNFRAMED:
            return None
        if kind == "error":
            raise self._provider.error_from_object(self._head, data, self.partial)
        raise self._provider.invalid_response(self._head, what, data, self.partial)

    def _is_without_json(self, data: str, kind: str) -> bool:
        """Return whether an event is a keep-alive or "[DONE]", which this reads."""
        if data == _DONE:
            self._read_done()
            return True
        return not data and kind != "error"

    def _is_ignored(self, raw: Any, kind: str) -> bool:
        """Return whether an event, which is no part of an answer, is one that the standard ignores.

        Raises the error that it reports, if it reports one. ``raw`` is its data, parsed.
        """
        self._raise_error_in(raw, kind)
        return kind == UNFRAMED

    def _raise_error_in(self, raw: Any, kind: str) -> None:
        """Raise the error that an event reports, if it reports one. ``raw`` is its data, parsed."""
        error = error_in(raw)
        if error is None and kind == "error":
            error = raw
        if error is not None:
            raise self._provider.error_from_object(self._head, error, self.partial)

    def _add_text(self, text: str, data: str) -> str:
        """Add ``text`` to the answer's text. Return what was added.

        Half a character at the end of ``text`` is kept until its other half arrives. ``data`` is the JSON of
        the event: only a ``\\u`` escape in it can split a character between two events. Raises ``TypeError``
        if ``text`` is not a str.
        """
        if type(text) is not str:
            raise TypeError("the text is not a str")
        if self._high_surrogate or (not text.isascii() and "\\u" in data):
            text = self._high_surrogate + text
            self._high_surrogate = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
            text = repair_surrogates(text.removesuffix(self._high_surrogate))
        if text:
            self._texts.append(text)
        return text

    def _incomplete_error(self) -> Exception:
        if self._has_events or looks_like_events(self._beginning):
            return self.interruption("its body ended before the provider marked the answer as complete")
        what = "what is not an event stream" if self._beginning.strip() else "an empty body"
        return self._provider.invalid_response(self._head, what, self._beginning)


def parse_index(index: Any) -> int:
    """Return ``index``, an int or a str of digits, as an int. Raises ``TypeError`` for any other value."""
    if isinstance(index, str) and index.isdecimal():
        return int(index)
    if type(index) is not int:
        raise TypeError("the index is not a number")
    return index


def _is_json(data: str) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
