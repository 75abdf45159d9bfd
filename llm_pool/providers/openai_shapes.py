"""The pieces that an answer of OpenAI's has with and without a stream, and how to read each."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.completions import Completion, Timing, ToolCall
from llm_pool.providers.answers import mend
from llm_pool.providers.usage import usage_of

__all__ = ["completion_of", "text_of"]


def completion_of(
    raw: dict[str, Any], request_id: str | None, timing: Timing | None, text: str | None = None
) -> Completion:
    """A chat completion; its first choice is read. Raises what reading another shape raises.

    ``text`` is that choice's, where it is known already.
    """
    choices = raw["choices"]
    choice = next((choice for choice in choices if not choice.get("index")), choices[0])
    message = choice["message"]
    if text is None:
        text = mend(text_of(message.get("content")))
    calls = message.get("tool_calls")
    return Completion(
        text,
        raw.get("model"),
        choice.get("finish_reason") or None,
        tuple(_tool_call_of(call) for call in calls) if calls else (),
        usage_of(raw.get("usage"), "prompt_tokens", "completion_tokens"),
        request_id,
        timing,
        raw,
    )


def text_of(content: Any) -> str:
    """The text of a message's content: a string, nothing, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _arguments_of(part: dict[str, Any]) -> str:
    """A tool call's arguments as the JSON text they are meant to be; "custom" tools take free text."""
    arguments = part.get("arguments", part.get("input"))
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tool_call_of(call: dict[str, Any]) -> ToolCall:
    part = call.get("function") or call.get("custom") or {}
    return ToolCall(call.get("id") or "", part.get("name") or "", mend(_arguments_of(part)))
