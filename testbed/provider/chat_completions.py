"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from testbed.provider.api import as_json
from testbed.provider.quirks.registry import CHAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.provider.answers import Answer, Citation, Tokens, ToolCall
    from testbed.provider.api import APIRequest, Event
    from testbed.provider.errors import APIError

__all__ = ["CREATED", "ChatCompletions", "error_object"]

DONE = b"data: [DONE]\n\n"
CREATED = 1700000000  # seconds since 1970


class ChatCompletions:
    """``POST */chat/completions``.

    A stream ends with a chunk of the usage if the request's ``stream_options`` ask for it.
    """

    name = CHAT
    generates = True
    request_id_header = "x-request-id"
    heartbeat = b": keep-alive\n\n"

    def whole(self, answer: Answer, request: APIRequest) -> dict[str, Any]:
        choices = [_choice(0, _message(answer), answer.finish_reason, _logprobs(answer))]
        choices += [
            _choice(index, {"role": "assistant", "content": "".join(pieces), "refusal": None}, "stop")
            for index, pieces in enumerate(answer.choices[1:], 1)
        ]
        value = {**_top_level(answer, request, "chat.completion"), "choices": choices}
        return {**value, "usage": _usage(answer.usage)} if answer.usage else value

    def events(self, answer: Answer, request: APIRequest) -> list[Event]:
        include_usage = (request.body.get("stream_options") or {}).get("include_usage") and answer.usage
        top = _top_level(answer, request, "chat.completion.chunk")
        if include_usage:
            top["usage"] = None
        events: list[Event] = [{**top, "choices": [choice]} for choice in _stream_choices(answer)]
        if include_usage:
            events.append({**top, "choices": [], "usage": _usage(include_usage)})
        return [*events, DONE]

    def frame(self, event: dict[str, Any] | list[Any]) -> bytes:
        return b"data: " + as_json(event) + b"\n\n"

    def is_piece(self, event: Event) -> bool:
        return isinstance(event, dict) and any(
            value
            for choice in event.get("choices") or ()
            for name, value in (choice.get("delta") or choice.get("message") or {}).items()
            if name != "role"
        )

    def status(self, error: APIError) -> int:
        return error.status

    def error(self, error: APIError) -> dict[str, Any]:
        return error_object(error)


def error_object(error: APIError) -> dict[str, Any]:
    """OpenAI's JSON for an error, the same for all its APIs."""
    fields = {"message": error.message, "type": error.type, "param": None, "code": error.code}
    return {"error": fields}


def _top_level(answer: Answer, request: APIRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.number}",
        "object": kind,
        "created": CREATED,
        "model": answer.model or request.model,
    }


def _choice(
    index: int, message: dict[str, Any], reason: str | None, logprobs: Any = None, *, key: str = "message"
) -> dict[str, Any]:
    return {"index": index, key: message, "logprobs": logprobs, "finish_reason": reason}


def _message(answer: Answer) -> dict[str, Any]:
    silent = answer.tool_calls or answer.refusal or answer.audio
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if silent else ""),
        "refusal": "".join(answer.refusal) or None,
    }
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.citations:
        message["annotations"] = [_annotation(each, answer.text) for each in answer.citations]
    if answer.audio:
        message["audio"] = dict(answer.audio)
    if answer.tool_calls:
        message["tool_calls"] = [_tool_call(call, call.text) for call in answer.tool_calls]
    return message


def _stream_choices(answer: Answer) -> Iterator[dict[str, Any]]:
    """The choices of a stream's chunks, one a chunk; those of several choices alternate."""
    indexes = range(len(answer.choices))
    for index in indexes:
        yield _delta(index, role="assistant", content="" if answer.text else None, refusal=None)
    yield from (_delta(0, reasoning_content=piece) for piece in answer.reasoning)
    for number, pieces in enumerate(zip_longest(*answer.choices)):
        for index, piece in enumerate(pieces):
            if piece is not None:
                logprobs = _logprobs(answer, number) if index == 0 else None
                yield _delta(index, logprobs=logprobs, content=piece)
    yield from (_delta(0, refusal=piece) for piece in answer.refusal)
    if answer.audio:
        yield from (_delta(0, audio=part) for part in _audio_parts(dict(answer.audio)))
    if answer.citations:
        yield _delta(0, annotations=[_annotation(each, answer.text) for each in answer.citations])
    for position, call in enumerate(answer.tool_calls):
        yield from (_delta(0, tool_calls=[part]) for part in _tool_call_parts(position, call))
    for index in indexes:
        yield _choice(index, {}, "stop" if index else answer.finish_reason, key="delta")


def _delta(index: int, *, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    return _choice(index, delta, None, logprobs, key="delta")


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool_call_parts(index: int, call: ToolCall) -> Iterator[dict[str, Any]]:
    yield {"index": index, **_tool_call(call, "")}
    yield from ({"index": index, "function": {"arguments": piece}} for piece in call.pieces)


def _annotation(citation: Citation, text: str) -> dict[str, Any]:
    where = {"start_index": 0, "end_index": len(text)}
    return {"type": "url_citation", "url_citation": {"url": citation.url, "title": citation.title, **where}}


def _audio_parts(audio: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A spoken answer as a stream sends it: id, then halves of the transcript, then of the data, the rest."""
    yield {"id": audio.pop("id", "audio_1")}
    for name in ("transcript", "data"):
        value = audio.pop(name, "")
        middle = len(value) // 2
        yield from ({name: part} for part in (value[:middle], value[middle:]) if part)
    if audio:
        yield audio


def _logprobs(answer: Answer, number: int | None = None) -> dict[str, Any] | None:
    """The log probability of the text's piece of that number, or of all its pieces."""
    if answer.logprobs is None:
        return None
    tokens = list(zip(answer.choices[0], answer.logprobs, strict=True))
    content = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in (tokens if number is None else tokens[number : number + 1])
    ]
    return {"content": content, "refusal": None}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
