"""Reads the event stream of a chat completion."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Chunk, Completion, Timing
from llm_pool.exceptions import LLMPoolError, StreamInterrupted
from llm_pool.providers.answers import mend
from llm_pool.providers.base import Head, Provider, StreamReader
from llm_pool.providers.openai_shapes import MISFIT, arguments_of, text_of, tool_call_of, usage_of
from llm_pool.sse import Event, EventParser

__all__ = ["OpenAIStreamReader"]

_loads = json.loads
_HEAD_KEPT = 4096  # bytes kept of a body that may turn out to be no event stream
_EVENT_STREAM_BEGINNINGS = (b":", b"data:", b"event:", b"id:", b"retry:")


class OpenAIStreamReader(StreamReader):
    """Reads ``data: {...}`` events up to ``data: [DONE]``.

    There are servers that leave the latter out: a finish reason and then a clean end of the body will do.
    """

    def __init__(self, provider: Provider, head: Head) -> None:
        self.finished = False
        self._failure: LLMPoolError | None = None
        self._provider = provider
        self._head = head
        self._parser = EventParser()
        self._beginning = b""
        self._any_event = False
        self._any_choice = False
        self._texts: list[str] = []
        self._half = ""  # a high surrogate whose other half is still to come
        self._calls: dict[Any, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._first: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def feed(self, data: bytes) -> list[Chunk]:
        """See ``StreamReader.feed``."""
        if not self._any_event and len(self._beginning) < _HEAD_KEPT:
            self._beginning += data[:_HEAD_KEPT]
        if self._failure is not None:
            raise self._failure
        return self._chunks(self._parser.feed(data))

    def end(self) -> list[Chunk]:
        """See ``StreamReader.end``."""
        chunks: list[Chunk] = []
        for event in self._parser.end(lenient=True):
            if event.data == "[DONE]" or _is_json(event.data):
                chunks += self._chunks([event])
        if not self.finished:
            if self._finish_reason is None:
                raise self._unfinished()
            self.finished = True
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def interruption(self, reason: str) -> StreamInterrupted:
        """See ``StreamReader.interruption``."""
        request_id = self._provider.request_id(self._head)
        mark = f" (request {request_id})" if request_id else ""
        return StreamInterrupted(
            f"{self._provider.name}'s stream{mark} was cut short: {reason}. "
            "What had come is in this error's partial; ask again for the rest.",
            partial=self.partial,
            request_id=request_id,
        )

    def completion(self, timing: Timing | None = None) -> Completion:
        """See ``StreamReader.completion``."""
        if self._failure is not None:
            raise self._failure
        text = self.partial
        calls = [_assembled(call) for call in self._calls.values()]
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if calls:
            message["tool_calls"] = calls
        raw = {name: value for name, value in self._first.items() if name != "choices"}
        raw["object"] = "chat.completion"
        raw["choices"] = [{"index": 0, "message": message, "finish_reason": self._finish_reason}]
        raw["usage"] = self._usage
        return Completion(
            text=text,
            model=raw.get("model"),
            finish_reason=self._finish_reason,
            tool_calls=tuple(tool_call_of(call) for call in calls),
            usage=usage_of(self._usage),
            request_id=self._provider.request_id(self._head),
            timing=timing,
            raw=raw,
        )

    def _chunks(self, events: list[Event]) -> list[Chunk]:
        """The chunks of ``events``. What came before an error is returned first; the error is raised next."""
        chunks: list[Chunk] = []
        try:
            for event in events:
                if self.finished:
                    break
                self._any_event = True
                if event.data == "[DONE]":
                    self._done()
                else:
                    chunks.append(self._read(event))
        except LLMPoolError as error:
            self.finished = True
            self._failure = error
            if not chunks:
                raise
        return chunks

    def _done(self) -> None:
        if not self._any_choice:
            raise self._provider.invalid_response(
                self._head, "a stream without choices", json.dumps(self._first)
            )
        self.finished = True

    def _read(self, event: Event) -> Chunk:
        data = event.data
        try:
            raw = _loads(data)
            if event.event == "error" or raw.get("error"):
                raise self._provider.error_from_object(self._head, raw, self.partial)
            return self._chunk(raw, data)
        except (ValueError, RecursionError):
            what = "an event that is not JSON"
        except MISFIT:
            what = "an event of another shape"
        raise self._provider.invalid_response(self._head, what, data, self.partial)

    def _chunk(self, raw: dict[str, Any], data: str) -> Chunk:
        """One event's chunk. Raises one of ``MISFIT`` where the event has another shape."""
        if not self._first:
            self._first = raw
        if usage := raw.get("usage"):
            self._usage = usage
        choices = raw.get("choices")
        if not choices:
            return Chunk("", raw)  # the usage at the end, or a content filter's findings at the beginning
        self._any_choice = True
        choice = choices[0]
        if choice.get("index"):
            return Chunk("", raw)  # n > 1: the text is that of the first choice
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        if type(text) is not str:
            text = text_of(text)
        if self._half or "\\u" in data:
            text = self._whole_characters(text)
        if text:
            self._texts.append(text)
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
        calls = delta.get("tool_calls")
        if calls:
            self._add_calls(calls)
        return Chunk(text, raw, reason, calls)

    def _whole_characters(self, text: str) -> str:
        """``text`` without the first half of a character whose other half comes in the next event."""
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return mend(text.removesuffix(self._half))

    def _add_calls(self, deltas: list[dict[str, Any]]) -> None:
        for delta in deltas:
            index = delta.get("index")
            if index is None:  # some servers send whole calls, and do not count them
                index = len(self._calls) if delta.get("id") or not self._calls else len(self._calls) - 1
            call = self._calls.setdefault(index, {"id": None, "type": "function", "name": None, "texts": []})
            kind = "custom" if "custom" in delta else "function"
            part = delta.get(kind) or {}
            if kind == "custom":
                call["type"] = kind
            call["id"] = delta.get("id") or call["id"]
            call["name"] = part.get("name") or call["name"]
            call["texts"].append(arguments_of(part))

    def _unfinished(self) -> Exception:
        seen = self._beginning.lstrip(b"\xef\xbb\xbf\r\n ")
        if not self._any_event and not seen.startswith(_EVENT_STREAM_BEGINNINGS):
            return self._no_event_stream()
        return self.interruption("its body ended without [DONE] or a finish reason")

    def _no_event_stream(self) -> Exception:
        try:
            raw = _loads(self._beginning)
            if raw.get("error"):
                return self._provider.error_from_object(self._head, raw)
        except (ValueError, AttributeError, RecursionError):
            pass
        what = "what is not an event stream" if self._beginning.strip() else "an empty body"
        return self._provider.invalid_response(self._head, what, self._beginning)


def _is_json(data: str) -> bool:
    try:
        _loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _assembled(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call put together from its parts, as a call without a stream would have brought it."""
    text = mend("".join(call["texts"]))
    kind = call["type"]
    return {
        "id": call["id"],
        "type": kind,
        kind: {"name": call["name"], "input" if kind == "custom" else "arguments": text},
    }
