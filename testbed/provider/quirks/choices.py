"""Quirks of chat completions: their choices, and what is beside them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from testbed.provider.quirks.registry import CHAT, quirk
from testbed.provider.quirks.shapes import choices_in, objects, parts, without_end_marker

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event


@quirk(CHAT, stream=True)
def choice_index_counts_chunks(events: list[Event], request: APIRequest) -> list[Event]:
    """The one choice has the index of its chunk: 0, 1, 2, ... (microsoft/foundry-local#263)."""
    for number, choice in enumerate(choices_in(events)):
        choice["index"] = number
    return events


@quirk(CHAT)
def choice_index_from_1(events: list[Event], request: APIRequest) -> list[Event]:
    """The first choice has the index 1 (huggingface/text-generation-inference#1648)."""
    for choice in choices_in(events):
        choice["index"] += 1
    return events


@quirk(CHAT)
def choice_without_index(events: list[Event], request: APIRequest) -> list[Event]:
    """Choices have no index."""
    for choice in choices_in(events):
        del choice["index"]
    return events


@quirk(CHAT, stream=True)
def message_for_delta(events: list[Event], request: APIRequest) -> list[Event]:
    """``message`` in place of ``delta`` in a stream's chunks."""
    for choice in choices_in(events):
        if "delta" in choice:
            choice["message"] = choice.pop("delta")
    return events


@quirk(CHAT)
def tools_in_a_choice_of_their_own(events: list[Event], request: APIRequest) -> list[Event]:
    """Text in one choice, the tool calls of the same turn in the next (SWE-agent/mini-swe-agent#804)."""
    for event in objects(events):
        for choice in list(event.get("choices") or ()):
            part = choice.get("message") or choice.get("delta") or {}
            if "tool_calls" not in part:
                continue
            if "delta" in choice:
                choice["index"] = 1
            else:
                own = {"role": "assistant", "content": None, "tool_calls": part.pop("tool_calls")}
                event["choices"].append({**choice, "index": 1, "message": own})
    return events


@quirk(CHAT, stream=True)
def role_in_every_delta(events: list[Event], request: APIRequest) -> list[Event]:
    """Each delta has the role (Perplexity, TGI)."""
    for part in parts(events):
        part["role"] = "assistant"
    return events


@quirk(CHAT, stream=True)
def empty_finish_reasons(events: list[Event], request: APIRequest) -> list[Event]:
    """The finish reason is "" where it should be null, until the last."""
    for choice in choices_in(events):
        choice["finish_reason"] = choice["finish_reason"] or ""
    return events


@quirk(CHAT, stream=True)
def finish_with_last_piece(events: list[Event], request: APIRequest) -> list[Event]:
    """The finish reason comes with the last piece, not after it (Gemini's compatible endpoint)."""
    pieces = [event for event in objects(events) if request.api.is_piece(event)]
    ends = [event for event in objects(events) if any(each["finish_reason"] for each in event["choices"])]
    if not pieces or len(ends) != 1:
        return events
    pieces[-1]["choices"][0]["finish_reason"] = ends[0]["choices"][0]["finish_reason"]
    return [event for event in events if event is not ends[0]]


@quirk(stream=True)
def spliced(events: list[Event], request: APIRequest) -> list[Event]:
    """After the last piece a second generation begins, with another id, and goes to its end."""
    last = max((number for number, event in enumerate(events) if request.api.is_piece(event)), default=-1)
    return [*events[: last + 1], *_with_other_id(events)]


@quirk(stream=True)
def answered_twice(events: list[Event], request: APIRequest) -> list[Event]:
    """After the finish reason a second generation begins, with another id, and goes to its end."""
    return [*without_end_marker(events), *_with_other_id(events)]


# Filters of content.


@quirk(CHAT)
def filtered_without_message(events: list[Event], request: APIRequest) -> list[Event]:
    """Azure's filter stopped the answer: the choice has no message (a cassette of traceloop/openllmetry)."""
    for choice in choices_in(events):
        if choice["finish_reason"]:
            choice.pop("message", choice.pop("delta", None))
            results = {"hate": {"filtered": True, "severity": "high"}}
            choice.update(finish_reason="content_filter", content_filter_results=results)
    return events


@quirk(CHAT, stream=True)
def filter_events(events: list[Event], request: APIRequest) -> list[Event]:
    """Azure's results for the prompt come first, without choices, and those for the text without a delta."""
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}]}
    offsets = {"check_offset": 44, "start_offset": 44, "end_offset": 198}
    later = {
        "index": 0,
        "finish_reason": None,
        "content_filter_results": safe,
        "content_filter_offsets": offsets,
    }
    return [first, *events[:-1], {"choices": [later]}, *events[-1:]]


# Usage.


@quirk(CHAT, stream=True, include_usage=True)
def usage_under_x_groq(events: list[Event], request: APIRequest) -> list[Event]:
    """The usage only under ``x_groq`` in the last chunk (Groq, without ``stream_options``)."""
    usage, last = _take_usage(events)
    last["x_groq"] = {"id": "req_1", "usage": usage}
    return events


@quirk(CHAT, stream=True, include_usage=True)
def usage_in_choice(events: list[Event], request: APIRequest) -> list[Event]:
    """The usage inside the last choice (Moonshot)."""
    usage, last = _take_usage(events)
    last["choices"][0]["usage"] = usage
    return events


@quirk(CHAT, stream=True, include_usage=True)
def usage_without_choices(events: list[Event], request: APIRequest) -> list[Event]:
    """A chunk with ``choices`` null, then the usage in one without ``choices`` (Growth-Circle/cadis#997)."""
    usage, last = _take_usage(events)
    return [
        *events[:-1],
        {"id": last["id"], "choices": None},
        {"id": last["id"], "usage": usage},
        *events[-1:],
    ]


@quirk(CHAT, stream=True, include_usage=True)
def usage_in_every_chunk(events: list[Event], request: APIRequest) -> list[Event]:
    """The usage so far in each chunk (langchain-ai/langchain#39924)."""
    usage, _ = _take_usage(events)
    spoken = objects(events)
    for number, event in enumerate(spoken, 1):
        done = usage["completion_tokens"] * number // len(spoken)
        total = usage["prompt_tokens"] + done
        event["usage"] = {**usage, "completion_tokens": done, "total_tokens": total}
    return events


# Fields of a single vendor.


@quirk(CHAT, include_usage=True)
def perplexity(events: list[Event], request: APIRequest) -> list[Event]:
    """Citations, search results and usage in each chunk; beside ``delta`` a ``message`` of all text so far.

    Met in vercel/ai's fixture perplexity-citations and perplexityai/api-discussion#175.
    """
    urls = [
        each["url_citation"]["url"] for part in parts(events) for each in part.pop("annotations", None) or ()
    ]
    beside = {"citations": urls, "search_results": [{"title": "A source", "url": url} for url in urls]}
    text = ""
    for event in objects(usage_in_every_chunk(events, request) if request.stream else events):
        event.update(copy.deepcopy(beside))
        event["usage"]["search_context_size"] = "low"
        for choice in event["choices"]:
            if "delta" in choice:
                text += choice["delta"].get("content") or ""
                choice["message"] = {"role": "assistant", "content": text}
    return events


@quirk(CHAT)
def channel_in_every_delta(events: list[Event], request: APIRequest) -> list[Event]:
    """``"channel": "analysis"`` beside each piece (Groq's gpt-oss, a cassette of pydantic-ai)."""
    for part in parts(events):
        part["channel"] = "analysis"
    return events


@quirk(CHAT)
def executed_tools(events: list[Event], request: APIRequest) -> list[Event]:
    """Groq's own search, told before and after it, in a whole answer once (a cassette of pydantic-ai)."""
    search: dict[str, Any] = {"index": 0, "type": "search", "arguments": '{"query": "weather"}'}
    found = {**search, "output": "sunny"}
    if not request.stream:
        for part in parts(events):
            part["executed_tools"] = [found]
        return events
    told = [
        {
            **objects(events)[0],
            "choices": [{"index": 0, "delta": {"executed_tools": [each]}, "finish_reason": None}],
        }
        for each in (search, found)
    ]
    return [*events[:1], *told, *events[1:]]


def _with_other_id(events: list[Event]) -> list[Event]:
    other = copy.deepcopy(events)
    for event in objects(other):
        holder = event.get("message") if "type" in event else event
        if holder:
            holder["id"] = "other-generation"
    return other


def _take_usage(events: list[Event]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the chunk of the usage out of the events; return the usage, and the last chunk before it."""
    chunk = next(event for event in objects(events) if event.get("usage"))
    events.remove(chunk)
    for event in objects(events):
        event.pop("usage", None)
    return chunk["usage"], objects(events)[-1]
