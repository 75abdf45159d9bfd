"""Reads the event stream of a message: https://docs.anthropic.com/en/docs/build-with-claude/streaming"""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Chunk, Completion, Timing
from llm_pool.providers.anthropic_shapes import completion_of
from llm_pool.providers.base import Head, Provider
from llm_pool.providers.event_stream import EventStreamReader
from llm_pool.sse import Event

__all__ = ["AnthropicStreamReader"]


class AnthropicStreamReader(EventStreamReader):
    """Reads up to ``message_stop``. Events and deltas of a kind not known here are passed on as they are."""

    def __init__(self, provider: Provider, head: Head) -> None:
        super().__init__(provider, head)
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._stopped = False

    def completion(self, timing: Timing | None = None) -> Completion:
        """See ``StreamReader.completion``."""
        if self._failure is not None:
            raise self._failure
        blocks = [_assembled(block) for _, block in sorted(self._blocks.items())]
        raw = {**self._message, "content": blocks}
        return completion_of(raw, self._provider.request_id(self._head), timing)

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
                self._message = dict(raw["message"])
            case "content_block_start":
                self._blocks[raw["index"]] = {**raw["content_block"], "pieces": []}
                return Chunk(self._keep(raw["content_block"].get("text") or "", data), raw)
            case "content_block_delta":
                return self._delta(raw, data)
            case "message_delta":
                self._message.update(raw["delta"])
                self._message["usage"] = {**(self._message.get("usage") or {}), **(raw.get("usage") or {})}
                reason = raw["delta"].get("stop_reason")
                self._stopped = self._stopped or reason is not None
                return Chunk("", raw, reason)
        return Chunk("", raw)

    def _delta(self, raw: dict[str, Any], data: str) -> Chunk:
        block, delta = self._blocks[raw["index"]], raw["delta"]
        match delta["type"]:
            case "text_delta":
                block["pieces"].append(delta["text"])
                return Chunk(self._keep(delta["text"], data), raw)
            case "input_json_delta":
                block["pieces"].append(delta["partial_json"])
                return Chunk("", raw, None, [delta])
            case "thinking_delta":
                block["pieces"].append(delta["thinking"])
            case "signature_delta":
                block["signature"] = delta["signature"]
        return Chunk("", raw)


_PLACES = {"text": "text", "thinking": "thinking", "tool_use": "input", "server_tool_use": "input"}


def _assembled(block: dict[str, Any]) -> dict[str, Any]:
    """A content block put together from its deltas, as a call without a stream would have brought it."""
    whole = {name: value for name, value in block.items() if name != "pieces"}
    place = _PLACES.get(block["type"])
    if place is None or not block["pieces"]:
        return whole
    text = "".join(block["pieces"])
    if place == "input":
        try:
            whole[place] = json.loads(text)
        except ValueError:
            whole[place] = text  # cut off by max_tokens
    else:
        whole[place] = (block.get(place) or "") + text
    return whole
