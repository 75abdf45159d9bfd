"""An Anthropic message, however it came: whole, or put together from a stream."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Completion, Timing, ToolCall
from llm_pool.providers.answers import mend
from llm_pool.providers.usage import usage_of

__all__ = ["completion_of"]


def completion_of(
    raw: dict[str, Any], request_id: str | None, timing: Timing | None, text: str | None = None
) -> Completion:
    """A message as a ``Completion``. Raises what reading another shape raises.

    ``text`` is its text, where that is known already.
    """
    blocks = raw["content"]
    if text is None:
        text = mend("".join(block.get("text") or "" for block in blocks if block["type"] == "text"))
    calls = [block for block in blocks if block["type"] == "tool_use"]
    return Completion(
        text=text,
        model=raw.get("model"),
        finish_reason=raw.get("stop_reason"),
        tool_calls=tuple(_tool_call_of(block) for block in calls),
        usage=usage_of(raw.get("usage"), "input_tokens", "output_tokens"),
        request_id=request_id,
        timing=timing,
        raw=raw,
    )


def _tool_call_of(block: dict[str, Any]) -> ToolCall:
    arguments = block.get("input")
    if not isinstance(arguments, str):  # a stream's may be JSON that is not valid: then it stays a string
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(block.get("id") or "", block.get("name") or "", mend(arguments))
