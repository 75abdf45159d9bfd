"""The events that a response sends, as JSON in server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from llm_pool.providers.results import Chunk, Completion

__all__ = ["LAST_ID", "Format", "JSONEvents"]

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
    """The format of ``event_stream``, which describes its events."""

    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self._number = 0  # of the last event

    def chunks(self, chunks: list[Chunk]) -> str:
        """See ``Format``."""
        return "".join([self._event(json.dumps({"text": chunk.text})) for chunk in chunks if chunk.text])

    def done(self, completion: Completion) -> str:
        """See ``Format``."""
        return f"event: done\nid: {LAST_ID}\ndata: {json.dumps(_summary(completion))}\n\n"

    def failed(self, name: str, message: str) -> str:
        """See ``Format``."""
        data = json.dumps({"error": name, "message": message})
        return f"event: failed\nid: {LAST_ID}\ndata: {data}\n\n"

    def _event(self, data: str) -> str:
        self._number += 1
        return f"id: {self._number}\ndata: {data}\n\n"


def _summary(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "text": completion.text,
        "refusal": completion.refusal,
        "citations": [
            {"url": each.url, "title": each.title, "text": each.text} for each in completion.citations
        ],
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
