"""An Anthropic message, however it came: whole, or put together from a stream."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Completion, Timing, ToolCall, Usage
from llm_pool.providers.answers import mend

__all__ = ["completion_of"]


def completion_of(raw: dict[str, Any], request_id: str | None, timing: Timing | None) -> Completion:
    """A message as a ``Completion``. Raises what reading another shape raises."""
    blocks = raw["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [block for block in blocks if block["type"] == "tool_use"]
    return Completion(
        text=text if text.isascii() else mend(text),
        model=raw.get("model"),
        finish_reason=raw.get("stop_reason"),
        tool_calls=tuple(_tool_call_of(block) for block in calls),
        usage=_usage_of(raw.get("usage")),
        request_id=request_id,
        timing=timing,
        raw=raw,
    )


def _tool_call_of(block: dict[str, Any]) -> ToolCall:
    arguments = block.get("input")
    if not isinstance(arguments, str):  # a stream's may be JSON that is not valid: then it stays a string
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(block.get("id") or "", block.get("name") or "", mend(arguments))


def _usage_of(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    return Usage(raw.get("input_tokens") or 0, raw.get("output_tokens") or 0, raw)
