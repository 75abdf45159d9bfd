"""Responses of OpenAI's Responses API and their streams: made, and read with the provider's reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from llm_pool.providers.base import Head
from llm_pool.providers.openai import OpenAIResponses
from llm_pool.providers.results import Chunk, Completion

__all__ = [
    "ANSWER",
    "EVENTS",
    "HEAD",
    "WHOLE",
    "api",
    "assert_whole",
    "brought",
    "call",
    "content",
    "ended",
    "events_of",
    "frames",
    "message",
    "parse",
    "read",
    "reasoning",
    "response",
    "without",
]

JSON = dict[str, Any]
api = OpenAIResponses()
HEAD = Head(200, {"x-request-id": "req_1"})


def message(text: str = "Hello", **part: Any) -> JSON:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": [], **part}]
    return {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": content}


def reasoning(*texts: str, **fields: Any) -> JSON:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"id": "rs", "type": "reasoning", "summary": summary, **fields}


def call(arguments: str = '{"x": 1}', number: int = 1, **fields: Any) -> JSON:
    names = {"id": f"fc{number}", "type": "function_call", "call_id": f"call{number}", "name": "f"}
    return {**names, "arguments": arguments, "status": "completed", **fields}


def response(*items: JSON, **fields: Any) -> JSON:
    return {
        "id": "resp",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": "secret instructions",
        "model": "m",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        **fields,
        "output": list(items),
    }


def in_halves(text: str) -> list[str]:
    half = len(text) // 2
    return [text[:half], text[half:]]


def events_of(whole: JSON, cut: Callable[[str], list[str]] = in_halves) -> list[JSON]:
    """Return the documented events of a response, with each text in the pieces that ``cut`` makes of it."""
    begun = {
        "type": "response.created",
        "response": {**whole, "status": "in_progress", "output": [], "usage": None},
    }
    events = [
        event for position, item in enumerate(whole["output"]) for event in _item_events(position, item, cut)
    ]
    return [begun, *events, {"type": f"response.{whole['status']}", "response": whole}]


def _item_events(position: int, item: JSON, cut: Callable[[str], list[str]]) -> Iterator[JSON]:
    place = {"output_index": position, "item_id": item["id"]}
    empty: JSON = {**_EMPTY, "content": [], "summary": [], "status": "in_progress"}
    begun = {name: empty[name] if name in empty and value else value for name, value in item.items()}
    yield {"type": "response.output_item.added", "output_index": position, "item": begun}
    for kind, index, field in (
        ("content", "content_index", "content"),
        ("reasoning_summary", "summary_index", "summary"),
    ):
        for number, part in enumerate(item.get(field) or ()):
            yield from _part_events(kind, {**place, index: number}, part, cut)
    for field in _EMPTY:
        if field in item:
            yield from _text_events(f"{item['type']}_{field}", field, place, item[field], cut)
    yield {"type": "response.output_item.done", "output_index": position, "item": item}


def _part_events(kind: str, place: JSON, part: JSON, cut: Callable[[str], list[str]]) -> Iterator[JSON]:
    name = "refusal" if part["type"] == "refusal" else "text"
    start = {**part, name: "", **{field: [] for field in ("annotations", "logprobs") if field in part}}
    yield {"type": f"response.{kind}_part.added", **place, "part": start}
    yield from _text_events(_EVENTS[part["type"]], name, place, part[name], cut, part.get("logprobs"))
    for annotation in part.get("annotations") or ():
        yield {"type": "response.output_text.annotation.added", **place, "annotation": annotation}
    yield {"type": f"response.{kind}_part.done", **place, "part": part}


_EMPTY = {"arguments": "", "input": "", "code": ""}  # texts of an item, as its start has them
_EVENTS = {"output_text": "output_text", "refusal": "refusal", "reasoning_text": "reasoning_text",
           "summary_text": "reasoning_summary_text"}  # fmt: skip


def _text_events(
    kind: str, name: str, place: JSON, text: str, cut: Callable[[str], list[str]], logprobs: Any = None
) -> Iterator[JSON]:
    pieces = cut(text)
    for number, piece in enumerate(pieces):
        yield {
            "type": f"response.{kind}.delta",
            **place,
            "delta": piece,
            "logprobs": (logprobs or [])[number :: len(pieces)],
        }
    yield {"type": f"response.{kind}.done", **place, name: text}


def without(events: list[JSON], *ends: str) -> list[JSON]:
    """Return the events whose types end otherwise."""
    return [event for event in events if not event["type"].endswith(ends)]


def frames(*events: JSON) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode(errors="replace") for event in events
    )


def read(*events: JSON) -> tuple[list[Chunk], Completion]:
    reader = api.stream_reader(HEAD)
    chunks = reader.feed(frames(*events))
    if not reader.finished:
        chunks += reader.end()
    completion = reader.completion()
    assert "".join(map(str, chunks)) == completion.text == reader.partial
    return chunks, completion


def parse(whole: Any) -> Completion:
    return api.parse_completion(HEAD, json.dumps(whole).encode())


_CITED = {"type": "url_citation", "url": "https://a.test", "title": "A", "start_index": 0, "end_index": 5}
WHOLE = response(
    reasoning("2+2", "4+0", encrypted_content="XYZ"),
    message("Four.", annotations=[_CITED], logprobs=[{"token": "Fo"}, {"token": "ur."}]),
    call(),
    call('{"y": 2}', 2),
)
EVENTS = events_of(WHOLE)
ANSWER = parse(WHOLE)


def ended(*events: JSON, **fields: Any) -> list[JSON]:
    """Return the events, and a last one whose response has these fields."""
    return [*events, {"type": "response.completed", "response": {**WHOLE, **fields}}]


def brought(chunks: list[Chunk]) -> tuple[Any, ...]:
    """What all chunks bring together."""
    calls: dict[int, list[str]] = {}
    for part in (part for chunk in chunks for part in chunk.tool_calls):
        found = calls.setdefault(part.index, ["", "", ""])
        for place, piece in enumerate((part.id, part.name, part.arguments)):
            found[place] += piece
    return (
        "".join(chunk.text for chunk in chunks),
        "".join(chunk.reasoning for chunk in chunks),
        [tuple(calls[number]) for number in sorted(calls)],
        tuple(citation for chunk in chunks for citation in chunk.citations),
    )


def content(completion: Completion) -> tuple[Any, ...]:
    calls = [(each.id, each.name, each.arguments) for each in completion.tool_calls]
    return completion.text, completion.reasoning, calls, completion.citations


def assert_whole(*events: JSON) -> None:
    """Assert that a stream of these events is ``WHOLE``, in its chunks, its completion and its ``raw``."""
    chunks, completion = read(*events)
    assert brought(chunks) == content(completion) == content(ANSWER)
    assert completion.raw == WHOLE
    assert completion.message == ANSWER.message
