"""Reads the event stream of a chat completion."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Chunk, Completion, Timing
from llm_pool.providers.answers import mend
from llm_pool.providers.base import Head, Provider
from llm_pool.providers.event_stream import EventStreamReader
from llm_pool.providers.openai_shapes import arguments_of, text_of, tool_call_of, usage_of
from llm_pool.sse import Event

__all__ = ["OpenAIStreamReader"]


class OpenAIStreamReader(EventStreamReader):
    """Reads ``data: {...}`` events up to ``data: [DONE]``.

    There are servers that leave the latter out: a finish reason and then a clean end of the body will do.
    """

    def __init__(self, provider: Provider, head: Head) -> None:
        super().__init__(provider, head)
        self._any_choice = False
        self._calls: dict[Any, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._first: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None

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

    def _is_last(self, event: Event) -> bool:
        if event.data != "[DONE]":
            return False
        if not self._any_choice:
            raise self._provider.invalid_response(
                self._head, "a stream without choices", json.dumps(self._first)
            )
        return True

    def _is_complete(self) -> bool:
        return self._finish_reason is not None

    def _chunk(self, raw: dict[str, Any], data: str) -> Chunk:
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
        text = self._keep(text, data)
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
        calls = delta.get("tool_calls")
        if calls:
            self._add_calls(calls)
        return Chunk(text, raw, reason, calls)

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


def _assembled(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call put together from its parts, as a call without a stream would have brought it."""
    text = mend("".join(call["texts"]))
    kind = call["type"]
    return {
        "id": call["id"],
        "type": kind,
        kind: {"name": call["name"], "input" if kind == "custom" else "arguments": text},
    }
