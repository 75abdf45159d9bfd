"""Quirks of tool calls in chat completions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from testbed.provider.quirks.registry import CHAT, quirk
from testbed.provider.quirks.shapes import each_tool_call, objects, parts

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event

# How the parts of a stream belong to calls.


@quirk(CHAT, stream=True)
def tools_whole(events: list[Event], request: APIRequest) -> list[Event]:
    """Each call whole in one chunk (Ollama, Gemini, vLLM for some models)."""
    calls: dict[int, dict[str, Any]] = {}
    kept: list[Event] = []
    for event in events:
        part = next(each_tool_call([event]), None)
        if part is None or "id" in part:
            kept.append(event)
        if part is not None and "id" in part:
            calls[part["index"]] = part
        elif part is not None:
            calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return kept


@quirk(CHAT, stream=True)
def tools_at_index_0(events: list[Event], request: APIRequest) -> list[Event]:
    """Every call has the index 0 (vercel/ai#14277, QuantumNous/new-api#2701)."""
    for call in each_tool_call(events):
        if "index" in call:
            call["index"] = 0
    return events


@quirk(CHAT, stream=True)
def tools_without_index(events: list[Event], request: APIRequest) -> list[Event]:
    """No index (openai/openai-python#3246)."""
    for call in each_tool_call(events):
        call.pop("index", None)
    return events


@quirk(CHAT, stream=True)
def tools_index_in_first_part(events: list[Event], request: APIRequest) -> list[Event]:
    """Indexes from 7, and only in the first part of a call (vercel/ai#18333)."""
    for call in each_tool_call(events):
        index = call.pop("index", None)
        if index is not None and "id" in call:
            call["index"] = index + 7
    return events


@quirk(CHAT, stream=True)
def tools_id_in_every_part(events: list[Event], request: APIRequest) -> list[Event]:
    """Each part repeats the id of its call (agno-agi/agno#8880)."""
    ids: dict[int, Any] = {}
    for call in each_tool_call(events):
        if "index" in call:
            call["id"] = ids.setdefault(call["index"], call.get("id"))
    return events


@quirk(CHAT, stream=True)
def tools_name_in_every_part(events: list[Event], request: APIRequest) -> list[Event]:
    """Each part repeats the name of its tool (some of vLLM's parsers of tool calls)."""
    names: dict[int, str] = {}
    for call in each_tool_call(events):
        names.setdefault(call["index"], call["function"].get("name"))
        call["function"]["name"] = names[call["index"]]
    return events


@quirk(CHAT)
def tools_with_one_id(events: list[Event], request: APIRequest) -> list[Event]:
    """Every call has the same id, so that only the index or the place says which is which."""
    first = next((call["id"] for call in each_tool_call(events) if "id" in call), None)
    for call in each_tool_call(events):
        if "id" in call:
            call["id"] = first
    return events


@quirk(CHAT)
def tools_without_id(events: list[Event], request: APIRequest) -> list[Event]:
    """No id (Gemini, a cassette of pydantic-ai)."""
    for call in each_tool_call(events):
        call.pop("id", None)
    return events


@quirk(CHAT)
def tools_with_empty_id(events: list[Event], request: APIRequest) -> list[Event]:
    """The id is "" (Gemini, a cassette of pydantic-ai)."""
    for call in each_tool_call(events):
        if "id" in call:
            call["id"] = ""
    return events


@quirk(CHAT, stream=True)
def tools_twice(events: list[Event], request: APIRequest) -> list[Event]:
    """After the calls, each is told once more, whole and at its index."""
    return _told_again(events, 0)


@quirk(CHAT, stream=True)
def tools_at_several_indexes(events: list[Event], request: APIRequest) -> list[Event]:
    """After the calls, each is told once more, whole and at the next free index (mudler/LocalAI#9722)."""
    return _told_again(events, sum("id" in call for call in each_tool_call(events)))


# How a call looks.


@quirk(CHAT)
def tools_as_object(events: list[Event], request: APIRequest) -> list[Event]:
    """``tool_calls`` is the call itself, not a list (huggingface/text-generation-inference#2949)."""
    for part in parts(events):
        if len(part.get("tool_calls") or ()) == 1:
            part["tool_calls"] = part["tool_calls"][0]
    return events


@quirk(CHAT)
def tools_arguments_as_object(events: list[Event], request: APIRequest) -> list[Event]:
    """The arguments are an object, not text; in a stream whole (TGI, Cloudflare, Ollama)."""
    if request.stream:
        events = tools_whole(events, request)
    for call in each_tool_call(events):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"] or "{}")
    return events


@quirk(CHAT, stream=True)
def tools_arguments_begin_with_braces(events: list[Event], request: APIRequest) -> list[Event]:
    """The first part of a call has the arguments ``{}``, and the text follows."""
    for call in each_tool_call(events):
        if "id" in call:
            call["function"]["arguments"] = "{}"
    return events


@quirk(CHAT)
def tools_without_arguments(events: list[Event], request: APIRequest) -> list[Event]:
    """No ``arguments`` at all."""
    if request.stream:
        events = tools_whole(events, request)
    for call in each_tool_call(events):
        del call["function"]["arguments"]
    return events


@quirk(CHAT)
def function_call(events: list[Event], request: APIRequest) -> list[Event]:
    """``function_call`` of old in place of ``tool_calls``, for one call."""
    for event in objects(events):
        for choice in event["choices"]:
            part = choice.get("delta", choice.get("message"))
            if calls := part.pop("tool_calls", None):
                part["function_call"] = calls[0]["function"]
            if choice["finish_reason"] == "tool_calls":
                choice["finish_reason"] = "function_call"
    return events


@quirk(CHAT)
def thought_signature(events: list[Event], request: APIRequest) -> list[Event]:
    """Gemini's signature in each call, to be sent back (tinyhumansai/openhuman#3548)."""
    for call in each_tool_call(events):
        if "id" in call:
            call["extra_content"] = _SIGNATURE
    return events


@quirk(CHAT, stream=True)
def thought_signature_last(events: list[Event], request: APIRequest) -> list[Event]:
    """Gemini's signature in a last part of the calls, without index (HKUDS/OpenHarness#338)."""
    return _after_tools(events, {"extra_content": _SIGNATURE})


_SIGNATURE = {"google": {"thought_signature": "U0lH"}}


def _told_again(events: list[Event], offset: int) -> list[Event]:
    whole: dict[int, dict[str, Any]] = {}
    for call in each_tool_call(events):
        if "id" in call:
            whole[call["index"]] = {**call, "function": dict(call["function"])}
        else:
            whole[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return _after_tools(events, *({**call, "index": index + offset} for index, call in whole.items()))


def _after_tools(events: list[Event], *calls: dict[str, Any]) -> list[Event]:
    """Put a chunk for each part behind the last one with a tool call."""
    last = [number for number, event in enumerate(events) if any(each_tool_call([event]))]
    if not last:
        return events
    chunk: Any = events[last[-1]]
    choice = chunk["choices"][0]
    added = [{**chunk, "choices": [{**choice, "delta": {"tool_calls": [call]}}]} for call in calls]
    return [*events[: last[-1] + 1], *added, *events[last[-1] + 1 :]]
