"""Quirks of Anthropic's messages and of endpoints that are compatible with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from testbed.provider.quirks.registry import MESSAGES, quirk
from testbed.provider.quirks.shapes import objects

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event


@quirk(MESSAGES, stream=True)
def input_in_block_start(events: list[Event], request: APIRequest) -> list[Event]:
    """A tool's whole input in the start of its block, without deltas (Yeachan-Heo/gajae-code#1895)."""
    return _whole_in_start(events, "input_json_delta")


@quirk(MESSAGES, stream=True)
def text_in_block_start(events: list[Event], request: APIRequest) -> list[Event]:
    """The first piece of a text in the start of its block."""
    return _first_in_start(events, "text")


@quirk(MESSAGES, stream=True)
def thinking_in_block_start(events: list[Event], request: APIRequest) -> list[Event]:
    """The first piece of the thinking in the start of its block (can1357/oh-my-pi#8319)."""
    return _first_in_start(events, "thinking")


@quirk(MESSAGES, stream=True)
def usage_at_the_end(events: list[Event], request: APIRequest) -> list[Event]:
    """Zeros in ``message_start``, the input's tokens only in ``message_delta`` (fixtures of vercel/ai)."""
    for event in objects(events):
        if event["type"] == "message_start":
            event["message"]["usage"] = dict.fromkeys(event["message"]["usage"], 0)
    return events


@quirk(MESSAGES, stream=True)
def usage_in_several_deltas(events: list[Event], request: APIRequest) -> list[Event]:
    """An earlier ``message_delta`` with a part of the usage; lists in it are cumulative too."""
    last = next((event for event in objects(events) if event["type"] == "message_delta"), None)
    if last is None or "usage" not in last:
        return events
    iterations = [{"type": "message", **last["usage"]}]
    last["usage"]["iterations"] = iterations
    early = {"output_tokens": 1, "iterations": iterations}
    events.insert(1, {"type": "message_delta", "delta": {"stop_reason": None}, "usage": early})
    return events


@quirk(MESSAGES)
def server_search(events: list[Event], request: APIRequest) -> list[Event]:
    """The API searches first: ``server_tool_use`` and its result before the blocks (web search)."""
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather"}}
    found = {"type": "web_search_result", "url": "https://a.test", "title": "A", "encrypted_content": "RQ=="}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}
    if not request.stream:
        for event in objects(events):
            event["content"] = [use, result, *event["content"]]
        return events
    for event in objects(events):
        if "index" in event:
            event["index"] += 2
    query = {"type": "input_json_delta", "partial_json": '{"query": "weather"}'}
    blocks: list[Event] = [
        {"type": "content_block_start", "index": 0, "content_block": {**use, "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": query},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": result},
        {"type": "content_block_stop", "index": 1},
    ]
    return [*events[:1], *blocks, *events[1:]]


@quirk(MESSAGES, stream=True)
def unknown_events(events: list[Event], request: APIRequest) -> list[Event]:
    """An event, a block and a delta of types that the documentation does not have yet."""
    index = 1 + max((event["index"] for event in objects(events) if "index" in event), default=-1)
    later: list[Event] = [
        {"type": "note", "note": {"text": "of a later version"}},
        {"type": "content_block_start", "index": index, "content_block": {"type": "sketch", "lines": []}},
        {"type": "content_block_delta", "index": index, "delta": {"type": "sketch_delta", "line": "x"}},
        {"type": "content_block_stop", "index": index},
    ]
    return [*events[:-2], *later, *events[-2:]]


def _whole_in_start(events: list[Event], delta: str) -> list[Event]:
    """Put the joined deltas of each tool's block into its start."""
    texts: dict[int, str] = {}
    kept: list[Event] = []
    for event in events:
        if isinstance(event, dict) and event.get("delta", {}).get("type") == delta:
            texts[event["index"]] = texts.get(event["index"], "") + event["delta"]["partial_json"]
        else:
            kept.append(event)
    for event in objects(kept):
        if event["type"] == "content_block_start" and event["index"] in texts:
            event["content_block"]["input"] = json.loads(texts[event["index"]] or "{}")
    return kept


def _first_in_start(events: list[Event], kind: str) -> list[Event]:
    """Move the first delta of each block of this type into its start."""
    kept: list[Event] = []
    started: dict[int, dict[str, Any]] = {}
    for event in events:
        if isinstance(event, dict) and event.get("content_block", {}).get("type") == kind:
            started[event["index"]] = event["content_block"]
        if (
            isinstance(event, dict)
            and event.get("delta", {}).get("type") == f"{kind}_delta"
            and event["index"] in started
        ):
            started.pop(event["index"])[kind] = event["delta"][kind]
        else:
            kept.append(event)
    return kept
