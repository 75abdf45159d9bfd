"""Reads the content blocks of a message: https://docs.anthropic.com/en/api/messages#response-content

A field of the wrong type that is not needed is read as if it were not there.
"""

from __future__ import annotations

import json
from typing import Any

from llm_pool.providers.results import Citation, ToolCall, repair_surrogates, text_or_empty

__all__ = [
    "citation_of",
    "citations_of",
    "message_of",
    "reasoning_of",
    "refusal_of",
    "text_of",
    "tool_call_of",
]

Blocks = list[dict[str, Any]]


def text_of(blocks: Blocks) -> str:
    """Return the text of a message."""
    return repair_surrogates("".join(block.get("text") or "" for block in blocks if block["type"] == "text"))


def reasoning_of(blocks: Blocks) -> str:
    """Return the text of the "thinking" blocks."""
    return repair_surrogates(
        "".join(text_or_empty(b.get("thinking")) for b in blocks if b["type"] == "thinking")
    )


def refusal_of(raw: dict[str, Any]) -> str:
    """Return the explanation of a refusal: https://docs.anthropic.com/en/api/handling-stop-reasons#refusal"""
    details = raw.get("stop_details")
    if raw.get("stop_reason") != "refusal" or not isinstance(details, dict):
        return ""
    return repair_surrogates(text_or_empty(details.get("explanation")))


def citations_of(blocks: Blocks) -> tuple[Citation, ...]:
    """Return the citations of all "text" blocks, in order."""
    found = [block.get("citations") for block in blocks if block["type"] == "text"]
    return tuple(citation_of(raw) for citations in found if isinstance(citations, list) for raw in citations)


def citation_of(raw: dict[str, Any]) -> Citation:
    """Return one citation: https://docs.anthropic.com/en/docs/build-with-claude/citations"""
    title = text_or_empty(raw.get("title")) or text_or_empty(raw.get("document_title"))
    url = text_or_empty(raw.get("url")) or text_or_empty(raw.get("source"))
    return Citation(url or None, title or None, text_or_empty(raw.get("cited_text")), raw)


def tool_call_of(block: dict[str, Any]) -> ToolCall:
    """Return the tool call in a "tool_use" block."""
    arguments = block.get("input")
    if not isinstance(arguments, str):  # a str: invalid JSON of a stream
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(
        text_or_empty(block.get("id")), text_or_empty(block.get("name")), repair_surrogates(arguments), block
    )


def message_of(blocks: Blocks) -> dict[str, Any]:
    """Return the blocks as a message for the next call, without empty texts: the API refuses them."""
    kept = [block for block in blocks if block["type"] != "text" or block.get("text")]
    return {"role": "assistant", "content": kept}
