"""Quirks of reasoning and content in chat completions: the names and shapes of vendors.

Without a quirk, the reasoning is in ``reasoning_content``, as DeepSeek has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.provider.quirks.registry import CHAT, quirk
from testbed.provider.quirks.shapes import parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.provider.api import APIRequest, Event


@quirk(CHAT)
def reasoning_field(events: list[Event], request: APIRequest) -> list[Event]:
    """``reasoning`` (vLLM, Groq, OpenRouter)."""
    return _reasoning(events, lambda text: {"reasoning": text})


@quirk(CHAT)
def reasoning_text_field(events: list[Event], request: APIRequest) -> list[Event]:
    """``reasoning_text`` (GitHub Copilot)."""
    return _reasoning(events, lambda text: {"reasoning_text": text})


@quirk(CHAT)
def reasoning_twice(events: list[Event], request: APIRequest) -> list[Event]:
    """The same piece in ``reasoning`` and in ``reasoning_content`` (vLLM while it renamed the field)."""
    return _reasoning(events, lambda text: {"reasoning": text, "reasoning_content": text})


@quirk(CHAT)
def reasoning_details(events: list[Event], request: APIRequest) -> list[Event]:
    """``reasoning``, and ``reasoning_details`` with the same text in pieces (OpenRouter)."""
    detail = {"type": "reasoning.text", "format": "unknown", "index": 0}
    return _reasoning(
        events, lambda text: {"reasoning": text, "reasoning_details": [{**detail, "text": text}]}
    )


@quirk(CHAT)
def thinking_blocks(events: list[Event], request: APIRequest) -> list[Event]:
    """``thinking_blocks``, a block for each piece, the signature in a last one (BerriAI/litellm#29428)."""
    kind = {"type": "thinking"}
    if not request.stream:
        return _reasoning(
            events, lambda text: {"thinking_blocks": [{**kind, "thinking": text, "signature": "U0lH"}]}
        )
    at = [number for number, event in enumerate(events) if _has_reasoning(event)]
    events = _reasoning(
        events,
        lambda text: {"content": "", "thinking_blocks": [{**kind, "thinking": text, "signature": ""}]},
    )
    if at:
        chunk: Any = events[at[-1]]
        signed = {"content": "", "thinking_blocks": [{**kind, "thinking": "", "signature": "U0lH"}]}
        events.insert(at[-1] + 1, {**chunk, "choices": [{**chunk["choices"][0], "delta": signed}]})
    return events


@quirk(CHAT)
def thinking_parts(events: list[Event], request: APIRequest) -> list[Event]:
    """Reasoning as a part of the content (Mistral's magistral, a fixture of vercel/ai)."""
    return _reasoning_as_part(
        events, lambda text: {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    )


@quirk(CHAT)
def summary_parts(events: list[Event], request: APIRequest) -> list[Event]:
    """Reasoning and text as parts of the content (Databricks: tidyverse/ellmer#822)."""
    return content_parts(
        _reasoning_as_part(
            events, lambda text: {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}
        ),
        request,
    )


@quirk(CHAT)
def content_parts(events: list[Event], request: APIRequest) -> list[Event]:
    """The text as a list of parts, in a stream a part for each piece."""
    for part in parts(events):
        if isinstance(part.get("content"), str) and part["content"]:
            part["content"] = [{"type": "text", "text": part["content"]}]
        elif isinstance(part.get("content"), list):
            part["content"] = [
                {"type": "text", "text": each} if isinstance(each, str) else each for each in part["content"]
            ]
    return events


def _has_reasoning(event: Event) -> bool:
    return any("reasoning_content" in part for part in parts([event]))


def _reasoning(events: list[Event], change: Callable[[str], dict[str, Any]]) -> list[Event]:
    for part in parts(events):
        if "reasoning_content" in part:
            part.update(change(part.pop("reasoning_content")))
    return events


def _reasoning_as_part(events: list[Event], change: Callable[[str], dict[str, Any]]) -> list[Event]:
    for part in parts(events):
        if "reasoning_content" in part:
            text = part.get("content")
            texts = [{"type": "text", "text": text}] if text else []
            part["content"] = [change(part.pop("reasoning_content")), *texts]
    return events
