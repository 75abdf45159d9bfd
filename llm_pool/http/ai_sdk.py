"""The UI message stream protocol of Vercel's AI SDK, which its ``useChat`` reads.

See https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol#data-stream-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from llm_pool.providers.results import Chunk, Completion, ToolCall, ToolCallPart

__all__ = ["UIMessageEvents"]

DONE = "data: [DONE]\n\n"
FINISH_REASONS = {
    "stop": "stop",
    "completed": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
    "tool_use": "tool-calls",
}
"""The protocol's names for the reasons of OpenAI and Anthropic; "other" for all others."""

_FREE_TEXT = ("custom", "custom_tool_call")
"""The types of OpenAI's tool calls, in chat completions and responses, whose arguments are not JSON."""

Part = dict[str, Any]


class UIMessageEvents:
    """Writes the answer as parts of a message: its reasoning, its text, its tool calls and its sources.

    A refusal is text, because the protocol has no part for it. ``messageMetadata`` of the last part has
    ``model``, ``finishReason`` as the provider names it, ``usage`` and ``timing``.
    """

    headers: ClassVar[Mapping[str, str]] = {"X-Vercel-AI-UI-Message-Stream": "v1"}

    def __init__(self, include: Collection[str]) -> None:
        self._has_reasoning = "reasoning" in include
        self._has_tool_calls = "tool_calls" in include
        self._begun = False
        self._kind = ""  # of the part that is open: "text", "reasoning" or "" for none
        self._number = 0  # of this part
        self._call_ids: dict[int, str] = {}  # by the position of the tool call

    def chunks(self, chunks: list[Chunk]) -> str:
        """See ``Format``."""
        events = []
        for chunk in chunks:
            if self._has_reasoning and chunk.reasoning:
                events.append(self._delta("reasoning", chunk.reasoning))
            if text := chunk.text or chunk.refusal:
                events.append(self._delta("text", text))
            if self._has_tool_calls and chunk.tool_calls:
                events += [self._written(self._tool_input_delta(part)) for part in chunk.tool_calls]
        return "".join(events)

    def done(self, completion: Completion) -> str:
        """See ``Format``."""
        parts = self._end_of_part()
        if self._has_tool_calls:
            parts += [self._tool_input(index, call) for index, call in enumerate(completion.tool_calls)]
        for number, source in enumerate(completion.choices[0].citations, start=1):
            if source.url:
                part = {"type": "source-url", "sourceId": f"source-{number}", "url": source.url}
                parts.append({**part, "title": source.title} if source.title else part)
        parts += [
            {"type": "finish-step"},
            {
                "type": "finish",
                "finishReason": _finish_reason(completion),
                "messageMetadata": _metadata(completion),
            },
        ]
        return self._written(parts) + DONE

    def failed(self, name: str, message: str) -> str:
        """See ``Format``. The protocol has no place for the name."""
        return self._written([*self._end_of_part(), {"type": "error", "errorText": message}]) + DONE

    def _written(self, parts: list[Part]) -> str:
        if parts and not self._begun:
            self._begun = True
            parts = [{"type": "start"}, {"type": "start-step"}, *parts]
        return "".join([f"data: {json.dumps(part)}\n\n" for part in parts])

    def _delta(self, kind: str, text: str) -> str:
        start = ""
        if self._kind != kind:
            end = self._end_of_part()
            self._kind = kind
            self._number += 1
            start = self._written([*end, {"type": f"{kind}-start", "id": str(self._number)}])
        # A dict would need an encoder for each token.
        delta = f'{{"type": "{kind}-delta", "id": "{self._number}", "delta": {json.dumps(text)}}}'
        return f"{start}data: {delta}\n\n"

    def _end_of_part(self) -> list[Part]:
        kind, self._kind = self._kind, ""
        return [{"type": f"{kind}-end", "id": str(self._number)}] if kind else []

    def _tool_input_delta(self, part: ToolCallPart) -> list[Part]:
        parts = []
        if part.index not in self._call_ids:
            self._call_ids[part.index] = part.id or _call_id(part.index)
            parts = self._end_of_part()
            start = {"toolCallId": self._call_ids[part.index], "toolName": part.name}
            parts.append({"type": "tool-input-start", **start})
        if part.arguments:
            call_id = self._call_ids[part.index]
            parts.append(
                {"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": part.arguments}
            )
        return parts

    def _tool_input(self, index: int, call: ToolCall) -> Part:
        """Return the part with the whole arguments: parsed, or the text with an error if it is not JSON."""
        call_id = self._call_ids.get(index) or call.id or _call_id(index)
        part = {"type": "tool-input-available", "toolCallId": call_id, "toolName": call.name}
        if call.raw.get("type") in _FREE_TEXT:
            return {**part, "input": call.arguments}
        try:
            return {**part, "input": json.loads(call.arguments)}
        except (ValueError, RecursionError):
            problem = "The arguments are not valid JSON."
            return {**part, "type": "tool-input-error", "input": call.arguments, "errorText": problem}


def _finish_reason(completion: Completion) -> str:
    """Return the protocol's name for the reason. A response that calls tools is "completed" too."""
    if completion.finish_reason == "completed" and completion.tool_calls:
        return "tool-calls"
    return FINISH_REASONS.get(completion.finish_reason or "", "other")


def _call_id(index: int) -> str:
    return f"call-{index + 1}"


def _metadata(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "model": completion.model,
        "finishReason": completion.finish_reason,
        "usage": usage
        and {
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "totalTokens": usage.input_tokens + usage.output_tokens,
            "cachedInputTokens": usage.cached_tokens,
            "reasoningTokens": usage.reasoning_tokens,
        },
        "timing": completion.timing and asdict(completion.timing),
    }
