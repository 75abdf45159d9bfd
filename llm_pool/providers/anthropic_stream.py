"""Reads the event stream of a message: https://docs.anthropic.com/en/docs/build-with-claude/streaming"""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Chunk, Completion, Timing
from llm_pool.providers.anthropic_shapes import completion_of
from llm_pool.providers.base import Head, Provider
from llm_pool.providers.event_stream import EventStreamReader, place
from llm_pool.providers.merging import Merged
from llm_pool.sse import Event

__all__ = ["AnthropicStreamReader"]


class AnthropicStreamReader(EventStreamReader):
    """Reads up to ``message_stop``. Events and deltas of a kind not known here are passed on as they are."""

    def __init__(self, provider: Provider, head: Head) -> None:
        super().__init__(provider, head)
        self._message = Merged()
        self._blocks: dict[int, Merged] = {}
        self._stopped = False

    def _whole(self, request_id: str | None, timing: Timing | None) -> Completion:
        blocks = [_with_input(block.whole()) for _, block in sorted(self._blocks.items())]
        raw = {**self._message.whole(), "content": blocks}
        return completion_of(raw, request_id, timing, self.partial)

    def _is_last(self, event: Event) -> bool:
        if event.event != "message_stop":
            return False
        if not self._message:
            raise self._provider.invalid_response(self._head, "a stream without a message", event.data)
        return True

    def _is_complete(self) -> bool:
        return self._stopped

    def _chunk(self, raw: dict[str, Any], data: str) -> Chunk:
        match raw["type"]:
            case "message_start":
                self._message.add(raw["message"], growing=False)
            case "content_block_start":
                return self._begin_block(raw, data)
            case "content_block_delta":
                return self._add_to_block(raw, data)
            case "message_delta":
                return self._add_to_message(raw)
        return Chunk("", raw)

    def _begin_block(self, raw: dict[str, Any], data: str) -> Chunk:
        start = raw["content_block"]
        text = start.get("text") if start["type"] == "text" else None
        block = self._blocks[place(raw["index"])] = Merged()
        block.add(start)
        return Chunk(self._keep(text or "", data), raw)

    def _add_to_block(self, raw: dict[str, Any], data: str) -> Chunk:
        block, delta = self._blocks[place(raw["index"])], raw["delta"]
        fields = {**delta}
        kind = fields.pop("type")
        if kind == "citations_delta":
            fields["citations"] = [fields.pop("citation")]
        block.add(fields)
        text = delta.get("text") if kind == "text_delta" else None
        calls = [delta] if kind == "input_json_delta" else None
        return Chunk(self._keep(text or "", data), raw, None, calls)

    def _add_to_message(self, raw: dict[str, Any]) -> Chunk:
        delta = raw["delta"]
        fields = {**raw, **delta}  # the usage comes beside the delta
        del fields["type"], fields["delta"]
        self._message.add(fields, growing=False)
        reason = delta.get("stop_reason")
        self._stopped = self._stopped or reason is not None
        return Chunk("", raw, reason)


def _with_input(block: dict[str, Any]) -> dict[str, Any]:
    """A content block as a call without a stream would have brought it: with its input parsed."""
    text = block.pop("partial_json", None)
    if text:
        try:
            block["input"] = json.loads(text)
        except (ValueError, RecursionError):
            block["input"] = text  # cut off by max_tokens, or as the model should not have written it
    return block
