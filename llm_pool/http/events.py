"""The events that a response sends: server-sent events with JSON or HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from django.utils.html import escape

from llm_pool.exceptions import with_article
from llm_pool.providers.results import Choice, Chunk, Completion

__all__ = ["LAST_ID", "Format", "HTMLEvents", "JSONEvents"]

LAST_ID = "end"
"""The id of an answer's last event."""


class Format(Protocol):
    """Writes the events of one answer, as text. It has a state: one object for each response.

    ``headers``  the format's own headers of the response
    """

    headers: ClassVar[Mapping[str, str]]

    def chunks(self, chunks: list[Chunk]) -> str:
        """Return the events for the chunks of one step; "" if they bring nothing that is sent."""

    def done(self, completion: Completion) -> str:
        """Return the events for the end of the answer."""

    def failed(self, name: str, message: str) -> str:
        """Return the events for an error: the name of its class, and a sentence for the visitor."""


class JSONEvents:
    """The format "events", which ``event_stream`` describes."""

    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, include: Collection[str] = ()) -> None:
        self._has_reasoning = "reasoning" in include
        self._has_tool_calls = "tool_calls" in include
        self._has_message = "message" in include
        self._number = 0  # of the last event

    def chunks(self, chunks: list[Chunk]) -> str:
        """See ``Format``."""
        events = []
        for chunk in chunks:
            if self._has_reasoning and chunk.reasoning:
                events.append(self._event(self._reasoning(chunk), "event: reasoning\n"))
            if chunk.text:
                events.append(self._event(self._text(chunk)))
            if self._has_tool_calls and chunk.tool_calls:
                events += [self._event(data, "event: tool_call\n") for data in self._tool_calls(chunk)]
        return "".join(events)

    def done(self, completion: Completion) -> str:
        """See ``Format``."""
        first = completion.choices[0]  # read once: it is built from the raw answer each time
        data = _summary(completion, first)
        if self._has_reasoning:
            data["reasoning"] = first.reasoning
        if self._has_message:
            data["message"] = first.message
        return f"event: done\nid: {LAST_ID}\ndata: {json.dumps(data)}\n\n"

    def failed(self, name: str, message: str) -> str:
        """See ``Format``."""
        data = json.dumps({"error": name, "message": message})
        return f"event: failed\nid: {LAST_ID}\ndata: {data}\n\n"

    def _event(self, data: str, head: str = "") -> str:
        self._number += 1
        return f"{head}id: {self._number}\ndata: {data}\n\n"

    def _text(self, chunk: Chunk) -> str:
        return f'{{"text": {json.dumps(chunk.text)}}}'  # a dict would need an encoder for each token

    def _reasoning(self, chunk: Chunk) -> str:
        return f'{{"text": {json.dumps(chunk.reasoning)}}}'

    def _tool_calls(self, chunk: Chunk) -> list[str]:
        return [json.dumps(asdict(part)) for part in chunk.tool_calls]


class HTMLEvents(JSONEvents):
    """The format "events" with HTML as data, as HTMX's extension ``sse`` expects it.

    The extension ends at one event only (``sse-close``): so ``done`` follows on ``failed`` too.
    See https://htmx.org/extensions/sse/.
    """

    def __init__(self, render: Callable[[Chunk], str], include: Collection[str] = ()) -> None:
        super().__init__(include)
        self._render = render

    def done(self, completion: Completion) -> str:
        """See ``Format``. The event has no data."""
        return _HTML_DONE

    def failed(self, name: str, message: str) -> str:
        """See ``Format``. The data is the sentence."""
        return f"event: failed\nid: {LAST_ID}\ndata: {_in_lines(escape(message))}\n\n{_HTML_DONE}"

    def _text(self, chunk: Chunk) -> str:
        html = self._render(chunk)
        if not isinstance(html, str):
            raise TypeError(f"render must return HTML as a str, and returned {with_article(html)}")
        return _in_lines(html)

    _reasoning = _text

    def _tool_calls(self, chunk: Chunk) -> list[str]:
        return [self._text(chunk)]


_HTML_DONE = f"event: done\nid: {LAST_ID}\ndata: \n\n"


def _in_lines(data: str) -> str:
    """Return ``data`` for a field that has one line: each further line is a field ``data`` of its own."""
    return re.sub(r"\r\n|\r|\n", "\ndata: ", data)


def _summary(completion: Completion, first: Choice) -> dict[str, Any]:
    usage = completion.usage
    return {
        "text": completion.text,
        "refusal": first.refusal,
        "citations": [{"url": each.url, "title": each.title, "text": each.text} for each in first.citations],
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "tool_calls": [
            {"id": each.id, "name": each.name, "arguments": each.arguments} for each in completion.tool_calls
        ],
        "usage": usage
        and {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "timing": completion.timing and asdict(completion.timing),
    }
