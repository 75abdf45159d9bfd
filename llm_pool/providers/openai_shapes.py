"""The pieces that an answer of OpenAI's has with and without a stream, and how to read each."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import ToolCall, Usage
from llm_pool.providers.answers import mend

__all__ = ["arguments_of", "text_of", "tool_call_of", "usage_of"]


def text_of(content: Any) -> str:
    """The text of a message's content: a string, nothing, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def usage_of(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    return Usage(raw.get("prompt_tokens") or 0, raw.get("completion_tokens") or 0, raw)


def arguments_of(part: dict[str, Any]) -> str:
    """A tool call's arguments as the JSON text they are meant to be; "custom" tools take free text."""
    arguments = part.get("arguments", part.get("input"))
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def tool_call_of(call: dict[str, Any]) -> ToolCall:
    part = call.get("function") or call.get("custom") or {}
    return ToolCall(call.get("id") or "", part.get("name") or "", mend(arguments_of(part)))
