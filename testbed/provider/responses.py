"""OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses

Its streams: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.provider.api import typed_event
from testbed.provider.chat_completions import CREATED, error_object
from testbed.provider.quirks.registry import RESPONSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.provider.answers import Answer, Tokens, ToolCall
    from testbed.provider.api import APIRequest, Event
    from testbed.provider.errors import APIError

__all__ = ["Responses"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_COMPLETE = frozenset({"stop", "tool_calls"})


class Responses:
    """``POST */responses``. Reasoning is a summary, encrypted reasoning is in the same item."""

    name = RESPONSES
    generates = True
    request_id_header = "x-request-id"
    heartbeat = b'event: keepalive\ndata: {"type": "keepalive", "sequence_number": 0}\n\n'

    def whole(self, answer: Answer, request: APIRequest) -> dict[str, Any]:
        _check(answer)
        return {**_response(answer, request), "output": list(_items(answer))}

    def events(self, answer: Answer, request: APIRequest) -> list[Event]:
        whole = self.whole(answer, request)
        begun = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        end = "incomplete" if whole["status"] == "incomplete" else "completed"
        events = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            *(event for at, item in enumerate(whole["output"]) for event in _item_events(at, item, answer)),
            {"type": f"response.{end}", "response": whole},
        ]
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]

    def frame(self, event: dict[str, Any] | list[Any]) -> bytes:
        return typed_event(event)

    def is_piece(self, event: Event) -> bool:
        return isinstance(event, dict) and bool(event.get("delta"))

    def status(self, error: APIError) -> int:
        return error.status

    def error(self, error: APIError) -> dict[str, Any]:
        """As the API sends it. The documentation has no "error" in an event (openai/openai-dotnet#881)."""
        return {"type": "error", **error_object(error)}


def _check(answer: Answer) -> None:
    if len(answer.choices) > 1 or answer.audio:
        raise ValueError("The Responses API has one choice and no audio: script one text without them.")


def _response(answer: Answer, request: APIRequest) -> dict[str, Any]:
    """The response without its output, with some of the parameters that it repeats."""
    reason = _INCOMPLETE.get(answer.finish_reason)
    status = "completed" if answer.finish_reason in _COMPLETE else answer.finish_reason
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if reason else status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": request.body.get("instructions"),
        "model": answer.model or request.model,
        "previous_response_id": request.body.get("previous_response_id"),
        "usage": _usage(answer.usage) if answer.usage else None,
    }


def _items(answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.reasoning or answer.redacted_reasoning:
        summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}] if answer.reasoning else []
        encrypted = answer.redacted_reasoning or None
        yield {"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": encrypted}
    content = [_text_part(answer)] if answer.choices[0] or answer.citations else []
    if answer.refusal:
        content.append({"type": "refusal", "refusal": "".join(answer.refusal)})
    if content or not answer.tool_calls:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        yield {**message, "content": content}
    for number, call in enumerate(answer.tool_calls, 1):
        yield _tool_item(number, call)


def _text_part(answer: Answer) -> dict[str, Any]:
    annotations = [
        {"type": "url_citation", "url": each.url, "title": each.title, "start_index": 0, "end_index": 1}
        for each in answer.citations
    ]
    logprobs = _logprobs(answer, slice(None))
    return {"type": "output_text", "text": answer.text, "annotations": annotations, "logprobs": logprobs}


def _logprobs(answer: Answer, pieces: slice) -> list[dict[str, Any]]:
    tokens = zip(answer.choices[0], answer.logprobs or (), strict=False)
    return [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in list(tokens)[pieces]
    ]


def _tool_item(number: int, call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.text or "{}",
    }


def _item_events(position: int, item: dict[str, Any], answer: Answer) -> Iterator[dict[str, Any]]:
    """The events of one item: its start, its parts or its arguments, its end."""
    place = {"output_index": position, "item_id": item["id"]}
    empty = {name: _EMPTY.get(name, value) for name, value in item.items()}
    yield {"type": "response.output_item.added", "output_index": position, "item": empty}
    if item["type"] == "reasoning":
        for part in item["summary"]:
            yield from _part_events("reasoning_summary", {**place, "summary_index": 0}, part, answer)
    elif item["type"] == "message":
        for number, part in enumerate(item["content"]):
            yield from _part_events("content", {**place, "content_index": number}, part, answer)
    else:
        pieces = answer.tool_calls[int(item["id"].removeprefix("fc_")) - 1].pieces or ["{}"]
        yield from _text_events("function_call_arguments", "arguments", place, pieces)
    yield {"type": "response.output_item.done", "output_index": position, "item": item}


_EMPTY: dict[str, Any] = {
    "arguments": "", "content": [], "encrypted_content": None, "status": "in_progress", "summary": []
}  # fmt: skip


def _part_events(
    kind: str, place: dict[str, Any], part: dict[str, Any], answer: Answer
) -> Iterator[dict[str, Any]]:
    name = "refusal" if part["type"] == "refusal" else "text"
    start = {**part, name: "", **{field: [] for field in ("annotations", "logprobs") if field in part}}
    yield {"type": f"response.{kind}_part.added", **place, "part": start}
    if part["type"] == "output_text":
        for number, piece in enumerate(answer.choices[0]):
            logprobs = _logprobs(answer, slice(number, number + 1))
            yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": logprobs}
        for number, annotation in enumerate(part["annotations"]):
            added = {"annotation_index": number, "annotation": annotation}
            yield {"type": "response.output_text.annotation.added", **place, **added}
        yield {
            "type": "response.output_text.done",
            **place,
            "text": part["text"],
            "logprobs": part["logprobs"],
        }
    elif part["type"] == "refusal":
        yield from _text_events("refusal", "refusal", place, answer.refusal)
    else:
        yield from _text_events("reasoning_summary_text", "text", place, answer.reasoning)
    yield {"type": f"response.{kind}_part.done", **place, "part": part}


def _text_events(kind: str, name: str, place: dict[str, Any], pieces: Any) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        yield {"type": f"response.{kind}.delta", **place, "delta": piece}
    yield {"type": f"response.{kind}.done", **place, name: "".join(pieces)}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }
