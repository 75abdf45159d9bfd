"""Quirks of servers that offer OpenAI's Responses API."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from testbed.provider.quirks.registry import RESPONSES, quirk
from testbed.provider.quirks.shapes import objects

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event


@quirk(RESPONSES, stream=True)
def no_final_output(events: list[Event], request: APIRequest) -> list[Event]:
    """An empty output in ``response.completed`` (vllm-project/vllm#30223, QuantumNous/new-api#4362)."""
    objects(events)[-1]["response"]["output"] = []
    return events


@quirk(RESPONSES, stream=True)
def no_final_response(events: list[Event], request: APIRequest) -> list[Event]:
    """Only deltas and the starts of items, and a ``response.completed`` that has nothing."""
    kept = _without(events, ".done")
    return [*kept[:-1], {"type": "response.completed"}]


@quirk(RESPONSES, stream=True)
def deltas_only(events: list[Event], request: APIRequest) -> list[Event]:
    """No event begins or ends an item, and deltas have no index (Oaklight/llm-rosetta#56)."""
    kept = _without(events, ".done", "part.added", "item.added")
    for event in objects(kept):
        for name in ("output_index", "content_index", "summary_index", "item_id"):
            event.pop(name, None)
    return kept


@quirk(RESPONSES, stream=True)
def no_deltas(events: list[Event], request: APIRequest) -> list[Event]:
    """Each text comes whole, when it ends (Sophomoresty/gemini-web2api#57)."""
    return _without(events, ".delta")


@quirk(RESPONSES, stream=True)
def items_only(events: list[Event], request: APIRequest) -> list[Event]:
    """Each item comes whole, when it ends; the output of the last event is empty."""
    kept = _without(events, ".delta", "text.done", "arguments.done", "part.done", "part.added")
    objects(kept)[-1]["response"]["output"] = []
    return kept


@quirk(RESPONSES, stream=True)
def last_event_only(events: list[Event], request: APIRequest) -> list[Event]:
    """No event but the first and the last."""
    return [events[0], events[-1]]


@quirk(RESPONSES, stream=True)
def new_id_in_each_event(events: list[Event], request: APIRequest) -> list[Event]:
    """Each event has an id of its own for the same item (GitHub Copilot: BerriAI/litellm#30071)."""
    for number, event in enumerate(objects(events)):
        for holder, name in _ids(event):
            holder[name] = f"{number}-{holder[name]}"
    return events


@quirk(RESPONSES, stream=True)
def content_index_counts_events(events: list[Event], request: APIRequest) -> list[Event]:
    """Each event has its own "content_index" (vllm-project/vllm#35184). The reasoning is no summary."""
    count = 0
    for event in _with_reasoning_text(events):
        if "content_index" in event:
            event["content_index"] = count
            count += 1
    return events


@quirk(RESPONSES, stream=True)
def names_of_openrouter(events: list[Event], request: APIRequest) -> list[Event]:
    """Deltas and the last event by other names (openrouter.ai/docs/api_reference/responses/basic-usage)."""
    names = {
        "response.output_text.delta": "response.content_part.delta",
        "response.completed": "response.done",
    }
    for event in objects(events):
        event["type"] = names.get(event["type"], event["type"])
    return events


@quirk(RESPONSES, stream=True)
def types_in_event_lines_only(events: list[Event], request: APIRequest) -> list[Event]:
    """The type of an event is only in its line ``event:``."""
    return [
        b"event: %s\n" % event.pop("type").encode() + request.encode(event).partition(b"\n")[2]
        if isinstance(event, dict)
        else event
        for event in copy.deepcopy(events)
    ]


@quirk(RESPONSES, stream=True)
def done_after_response(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: [DONE]`` after the last event, as chat completions have it."""
    return [*events, b"data: [DONE]\n\n"]


@quirk(RESPONSES)
def error_beside_type(events: list[Event], request: APIRequest) -> list[Event]:
    """The fields of an error beside its type, as the documentation has them."""
    return [
        {**event["error"], "type": "error"} if isinstance(event, dict) and event.get("error") else event
        for event in events
    ]


@quirk(RESPONSES)
def error_in_response(events: list[Event], request: APIRequest) -> list[Event]:
    """``response.failed``, and without a stream a response that has failed."""
    return [
        _failed(event, request) if isinstance(event, dict) and event.get("error") else event
        for event in events
    ]


def _failed(event: dict[str, Any], request: APIRequest) -> dict[str, Any]:
    response = {"object": "response", "status": "failed", "instructions": "x", "output": [], **event}
    del response["type"]
    return {"type": "response.failed", "response": response} if request.stream else response


def _with_reasoning_text(events: list[Event]) -> list[dict[str, Any]]:
    """Change each summary into the reasoning itself, and return the events."""
    for event in objects(events):
        event["type"] = event["type"].replace("_summary_text", "_text").replace("_summary_part", "_part")
        if "summary_index" in event:
            event["content_index"] = event.pop("summary_index")
        if "part" in event:
            event["part"]["type"] = event["part"]["type"].replace("summary_text", "reasoning_text")
        for item in [event["item"]] if "item" in event else event.get("response", {}).get("output", []):
            for part in item.get("summary", ()):
                part["type"] = "reasoning_text"
            if item.get("summary"):
                item["content"], item["summary"] = item["summary"], []
    return objects(events)


def _without(events: list[Event], *ends: str) -> list[Event]:
    return [event for event in events if not (isinstance(event, dict) and event["type"].endswith(ends))]


def _ids(event: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where the ids of items are in an event: (holder, key)."""
    items = [event["item"]] if "item" in event else event.get("response", {}).get("output", [])
    return [(item, "id") for item in items] + ([(event, "item_id")] if "item_id" in event else [])
