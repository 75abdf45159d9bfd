"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and .../messages-streaming"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from testbed.provider.api import typed_event
from testbed.provider.quirks.registry import MESSAGES

if TYPE_CHECKING:
    from testbed.provider.answers import Answer, Citation, Tokens, ToolCall
    from testbed.provider.api import APIRequest, Event
    from testbed.provider.errors import APIError

__all__ = ["Messages"]

_DELTA = "content_block_delta"
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class Messages:
    """``POST */v1/messages``. A stream has a ping after the start of its first block, as Anthropic's has."""

    name = MESSAGES
    generates = True
    request_id_header = "request-id"
    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'

    def whole(self, answer: Answer, request: APIRequest) -> dict[str, Any]:
        _check(answer)
        message = {**_start(answer, request), **_end(answer)}
        message["content"] = [block for block, _ in _blocks(answer)]
        return {**message, "usage": _usage(answer.usage)} if answer.usage else message

    def events(self, answer: Answer, request: APIRequest) -> list[Event]:
        _check(answer)
        start, usage = _start(answer, request), {}
        if answer.usage:
            start["usage"] = {**_usage(answer.usage), "output_tokens": 1}
            usage = {"usage": _usage(answer.usage)}
        events: list[Event] = [{"type": "message_start", "message": start}]
        for index, (block, deltas) in enumerate(_blocks(answer)):
            start_of_block = {name: _EMPTY.get(name, value) for name, value in block.items()}
            events.append({"type": "content_block_start", "index": index, "content_block": start_of_block})
            if index == 0:
                events.append({"type": "ping"})
            events += [{"type": _DELTA, "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        return [*events, {"type": "message_delta", "delta": _end(answer), **usage}, {"type": "message_stop"}]

    def frame(self, event: dict[str, Any] | list[Any]) -> bytes:
        return typed_event(event)

    def is_piece(self, event: Event) -> bool:
        return isinstance(event, dict) and any(
            value
            for name, value in event.get("delta", {}).items()
            if event["type"] == _DELTA and name != "type"
        )

    def status(self, error: APIError) -> int:
        return error.anthropic_status

    def error(self, error: APIError) -> dict[str, Any]:
        return {"type": "error", "error": {"type": error.anthropic_type, "message": error.message}}


# What a block's start has in the fields that deltas fill.
_EMPTY = {"thinking": "", "signature": "", "text": "", "citations": [], "input": {}}


def _check(answer: Answer) -> None:
    if len(answer.choices) > 1 or answer.logprobs or answer.audio:
        raise ValueError(
            "Anthropic's API has one choice, no logprobs and no audio: script one text without them."
        )


def _start(answer: Answer, request: APIRequest) -> dict[str, Any]:
    return {
        "id": f"msg_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _end(answer: Answer) -> dict[str, Any]:
    """The fields of the answer that a stream sends at its end."""
    if answer.refusal:
        details = {"type": "refusal", "category": "other", "explanation": "".join(answer.refusal)}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    reason = _STOP_REASONS.get(answer.finish_reason, answer.finish_reason)
    return {"stop_reason": reason, "stop_sequence": None}


def _blocks(answer: Answer) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each block of the content, whole, and the deltas that a stream sends for it."""
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if answer.reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in answer.reasoning]
        deltas.append({"type": "signature_delta", "signature": answer.signature})
        thinking = "".join(answer.reasoning)
        blocks.append(({"type": "thinking", "thinking": thinking, "signature": answer.signature}, deltas))
    if answer.redacted_reasoning:
        blocks.append(({"type": "redacted_thinking", "data": answer.redacted_reasoning}, []))
    if answer.choices[0] or answer.citations:
        blocks.append(_text_block(answer))
    blocks += [_tool_block(call) for call in answer.tool_calls]
    return blocks


def _text_block(answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    block: dict[str, Any] = {"type": "text", "text": answer.text}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in answer.choices[0]]
    if answer.citations:
        block["citations"] = [_citation(each) for each in answer.citations]
        deltas += [{"type": "citations_delta", "citation": each} for each in block["citations"]]
    return block, deltas


def _citation(citation: Citation) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.text,
        "encrypted_index": "RW5jcnlwdGVk",
    }


def _tool_block(call: ToolCall) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first delta of a tool's input is empty, as Anthropic's is. A text that is no JSON is sent in {}."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *call.pieces]]
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.text)}, deltas


def _input(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.output,
        "output_tokens_details": {"thinking_tokens": tokens.reasoning},
    }
