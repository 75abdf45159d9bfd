"""Reads the content blocks of a message: https://docs.anthropic.com/en/api/messages#response-content

A field of the wrong type that is not needed is read as if it were not there.
"""

from __future__ import annotations

import json
from typing import Any

from llm_pool.providers.results import Choice, Citation, ToolCall
from llm_pool.providers.texts import repair_surrogates, text_or_empty

__all__ = ["choices_in", "citation_of", "text_of", "tool_calls_of"]

Blocks = list[dict[str, Any]]


def choices_in(raw: dict[str, Any]) -> tuple[Choice, ...]:
    """Return the message as the only choice."""
    blocks: Blocks = raw["content"]
    found = [block.get("citations") for block in blocks if block["type"] == "text"]
    thoughts = [text_or_empty(block.get("thinking")) for block in blocks if block["type"] == "thinking"]
    # The API refuses an empty text in a request.
    kept = [block for block in blocks if block["type"] != "text" or block.get("text")]
    choice = Choice(
        text=text_of(blocks),
        finish_reason=text_or_empty(raw.get("stop_reason")) or None,
        tool_calls=tool_calls_of(blocks),
        reasoning=repair_surrogates("".join(thoughts)),
        refusal=_refusal_of(raw),
        citations=tuple(
            citation_of(raw)
            for citations in found
            if isinstance(citations, list)
            for raw in citations
            if isinstance(raw, dict)
        ),
        message={"role": "assistant", "content": kept},
    )
    return (choice,)


def text_of(blocks: Blocks) -> str:
    """Return the text of a message."""
    texts = [block.get("text") or "" for block in blocks if block["type"] == "text"]
    return repair_surrogates("".join(texts))


def _refusal_of(raw: dict[str, Any]) -> str:
    """Return the explanation of a refusal: https://docs.anthropic.com/en/api/handling-stop-reasons#refusal"""
    details = raw.get("stop_details")
    if raw.get("stop_reason") != "refusal" or not isinstance(details, dict):
        return ""
    return repair_surrogates(text_or_empty(details.get("explanation")))


def citation_of(raw: dict[str, Any]) -> Citation:
    """Return one citation: https://docs.anthropic.com/en/docs/build-with-claude/citations"""
    title = text_or_empty(raw.get("title")) or text_or_empty(raw.get("document_title"))
    url = text_or_empty(raw.get("url")) or text_or_empty(raw.get("source"))
    return Citation(url or None, title or None, text_or_empty(raw.get("cited_text")), raw)


def tool_calls_of(blocks: Blocks) -> tuple[ToolCall, ...]:
    """Return the tool calls of a message."""
    calls = [block for block in blocks if block["type"] == "tool_use"]
    return tuple(map(_tool_call_of, calls)) if calls else ()


def _tool_call_of(block: dict[str, Any]) -> ToolCall:
    arguments = block.get("input")
    if not isinstance(arguments, str):  # a str: invalid JSON of a stream
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(
        text_or_empty(block.get("id")), text_or_empty(block.get("name")), repair_surrogates(arguments), block
    )
