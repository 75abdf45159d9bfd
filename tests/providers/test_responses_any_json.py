"""Any JSON in any place of a stream of the Responses API, and streams that are cut anywhere."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool import exceptions
from tests.providers.responses_events import (
    EVENTS,
    HEAD,
    WHOLE,
    api,
    events_of,
    frames,
    message,
    read,
    reasoning,
    response,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text("a\ud800", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "id", "text", "output", "content"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((*path, key), *places(value[key], (*path, key)))]


ITEMS = [
    reasoning("A", content=[{"type": "reasoning_text", "text": "long"}]),
    {**message(), "content": [*message()["content"], {"type": "refusal", "refusal": "No."}]},
    {"id": "ct", "type": "custom_tool_call", "call_id": "c3", "name": "g", "input": "free text"},
    {"id": "m", "type": "mcp_call", "name": "h", "arguments": "{}", "output": None},
]
EVERY = [
    *EVENTS[:-1],
    *({**event, "output_index": event["output_index"] + 4} for event in events_of(response(*ITEMS))[1:-1]),
    {**EVENTS[-1], "response": {**WHOLE, "output": [*WHOLE["output"], *ITEMS]}},
]
PLACES = [(number, *place) for number, event in enumerate(EVERY) for place in places(event)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3),
    st.sets(st.sampled_from([".delta", ".done", "part.added", "item.added", "item.done"])),
    st.booleans(),
)
def test_any_json_in_any_place_gives_chunks_an_answer_or_an_error_of_this_package(
    changes: list[tuple[tuple[Any, ...], Any]], left_out: set[str], has_final: bool
) -> None:
    events = copy.deepcopy(EVERY)
    for path, value in changes:
        holder: Any = events
        for key in path[:-1]:
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):  # an earlier change has removed the place
                break
        else:
            if isinstance(holder, dict):
                holder[path[-1]] = value
    if not has_final:
        events[-1] = {"type": "response.completed"}
    try:
        kept = [{"type": "", **event} for event in events if isinstance(event, dict)]
        kept = [event for event in kept if not str(event["type"]).endswith(tuple(left_out))]
        completion = read(*kept)[1]
        json.dumps([completion.message, completion.logprobs, completion.reasoning, completion.refusal])
        assert isinstance(completion.citations, tuple)
    except exceptions.LLMPoolError:
        return


BODY = frames(*EVENTS)


@settings(deadline=None)
@given(st.integers(0, len(BODY)), st.integers(1, len(BODY)))
def test_a_stream_that_is_cut_anywhere_is_interrupted_and_never_an_answer(end: int, size: int) -> None:
    reader = api.stream_reader(HEAD)
    for start in range(0, end, size):
        reader.feed(BODY[start : min(start + size, end)])
    try:
        if not reader.finished:
            reader.end()
    except (exceptions.StreamInterrupted, exceptions.InvalidResponse):
        assert end < len(BODY) - 2  # the blank line at the end does not matter
    else:
        assert reader.completion().raw == WHOLE
