"""Reads the items of a response: https://platform.openai.com/docs/api-reference/responses/object#output

A field of the wrong type that is not needed is read as if it were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_pool.providers.openai.message import citations_of
from llm_pool.providers.openai.tool_calls import as_text
from llm_pool.providers.results import Choice, Citation, ToolCall
from llm_pool.providers.texts import repair_surrogates, text_or_empty

__all__ = [
    "ARGUMENTS_OF",
    "FAILED",
    "choices_in",
    "failure_of",
    "finish_reason_of",
    "input_items",
    "reasoning_of",
    "refusal_of",
    "response_citations",
    "text_of",
    "tool_call_of",
    "tool_calls_of",
]

Items = list[dict[str, Any]]

ARGUMENTS_OF = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of the user's tools, and the name of the field with the arguments."""
FAILED = frozenset({"failed", "cancelled"})
"""The statuses of responses that are no answers."""
_TEXTS = frozenset({"output_text", "text"})
_NULLABLE = frozenset({"code", "outputs", "result"})  # of the provider's own tools: a request must have them


def choices_in(raw: dict[str, Any]) -> tuple[Choice, ...]:
    """Return the response as the only choice."""
    items: Items = raw["output"] or []
    choice = Choice(
        text=text_of(items),
        finish_reason=finish_reason_of(raw),
        tool_calls=tool_calls_of(items),
        reasoning=reasoning_of(items),
        refusal=refusal_of(items),
        citations=response_citations(raw, items),
        message=_message_of(items),
        logprobs=_joined(items, "logprobs") or None,
    )
    return (choice,)


def text_of(items: Items) -> str:
    """Return the text of all messages."""
    return repair_surrogates("".join([part.get("text") or "" for part in _text_parts(items)]))


def reasoning_of(items: Items) -> str:
    """Return the summaries of the reasoning, or its own text where a server has no summaries.

    Each part is a paragraph.
    """
    texts: list[str] = []
    for item in items:
        if item.get("type") == "reasoning":
            found = [text_or_empty(part.get("text")) for part in _parts(item, "summary")]
            found = (
                found if any(found) else [text_or_empty(part.get("text")) for part in _parts(item, "content")]
            )
            texts += filter(None, found)
    return repair_surrogates("\n\n".join(texts))


def refusal_of(items: Items) -> str:
    """Return the refusals in all messages."""
    return repair_surrogates("".join(text_or_empty(part.get("refusal")) for part in _message_parts(items)))


def tool_calls_of(items: Items) -> tuple[ToolCall, ...]:
    """Return the calls of the user's tools. Calls of the provider's own tools are not among them."""
    calls = [item for item in items if item.get("type") in ARGUMENTS_OF]
    return tuple(map(tool_call_of, calls)) if calls else ()


def tool_call_of(item: dict[str, Any]) -> ToolCall:
    """Return the call in ``item``, an item with one of the types of ``ARGUMENTS_OF``."""
    kind = item["type"]
    arguments = as_text(item.get(ARGUMENTS_OF[kind])) or ("{}" if kind == "function_call" else "")
    identifier = text_or_empty(item.get("call_id")) or text_or_empty(item.get("id"))
    return ToolCall(identifier, text_or_empty(item.get("name")), repair_surrogates(arguments), item)


def response_citations(raw: dict[str, Any], items: Items) -> tuple[Citation, ...]:
    """Return the citations in the annotations of all texts, or in a list beside the output."""
    return citations_of(raw, {"annotations": _joined(items, "annotations")})


def finish_reason_of(raw: dict[str, Any]) -> str | None:
    """Return why an incomplete response is incomplete, otherwise the response's status."""
    details = raw.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return text_or_empty(reason) or text_or_empty(raw.get("status")) or None


def failure_of(response: dict[str, Any]) -> Any:
    """Return the error of a response that has failed.

    The rest is left out: a response repeats the instructions of its request, which an error must not show.
    """
    return response.get("error") or {"status": response.get("status"), "id": response.get("id")}


def input_items(messages: list[Mapping[str, Any]]) -> list[Any]:
    """Return ``messages`` as the items of a request: a ``Completion.message`` becomes its items."""
    items: list[Any] = []
    for message in messages:
        output = message.get("output")
        if isinstance(output, (list, tuple)) and message.get("role") == "assistant":
            items += output
        else:
            items.append(message)
    return items


def _message_of(items: Items) -> dict[str, Any]:
    """Return the items as one message, which ``input_items`` unfolds again.

    Fields that a request must not have are left out: null fields of an item or of its parts, but for those
    that it must have, and the status of a reasoning, which OpenAI refuses ("Unknown parameter:
    'input[1].status'").
    """
    return {"role": "assistant", "output": [_to_send(item) for item in items]}


def _to_send(item: dict[str, Any]) -> dict[str, Any]:
    sent = _without_nulls(item)
    if item.get("type") == "reasoning":
        sent.pop("status", None)
    elif item.get("type") == "message":
        sent.setdefault("role", "assistant")  # missing where a stream has only deltas
    if isinstance(content := item.get("content"), list):
        sent["content"] = [_without_nulls(part) if isinstance(part, dict) else part for part in content]
    return sent


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in value.items() if field is not None or name in _NULLABLE}


def _text_parts(items: Items) -> Items:
    return [part for part in _message_parts(items) if part.get("type") in _TEXTS]


def _message_parts(items: Items) -> Items:
    return [part for item in items if item.get("type") == "message" for part in _parts(item, "content")]


def _parts(item: dict[str, Any], field: str) -> Items:
    parts = item.get(field)
    if isinstance(parts, str):
        return [{"type": "text", "text": parts}]
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _joined(items: Items, field: str) -> list[Any]:
    found = [part.get(field) for part in _text_parts(items)]
    return [value for values in found if isinstance(values, list) for value in values]
