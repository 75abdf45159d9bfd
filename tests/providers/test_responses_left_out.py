"""Random responses whose streams lack any events that others make up for: they are the whole answers."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.providers.texts import repair_surrogates
from tests.providers.random_answers.responses import random_response
from tests.providers.responses_events import brought, content, parse, read, without

TEXT_ENDS = ("text.done", "arguments.done", "input.done", "code.done", "refusal.done")
EVENTS = [(".delta",), TEXT_ENDS, ("part.done",), ("part.added",), ("annotation.added",), ("item.added",)]


def renamed(events: list[dict[str, Any]], ids: str) -> None:
    """Give each event ids of its own ("new"), or none ("missing")."""
    for number, event in enumerate(events[:-1]):
        for holder, name in ((event.get("item", {}), "id"), (event, "item_id")):
            if name in holder and ids == "new":
                holder[name] = f"{number}-{holder[name]}"
            elif ids == "missing":
                holder.pop(name, None)


def joined(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what chunks brought, as a whole answer has it: halves of characters joined, and "{}" for ""."""
    text, thought, calls, citations = found
    calls = [(*names, repair_surrogates(arguments) or "{}") for *names, arguments in calls]
    return text, repair_surrogates(thought), calls, citations


@settings(deadline=None)
@given(
    st.integers(0, 10**9),
    st.sets(st.sampled_from(EVENTS)),
    st.sampled_from(["right", "new", "missing"]),
    st.booleans(),
    st.booleans(),
)
def test_a_stream_without_any_of_its_events_is_the_whole_answer(
    seed: int, left_out: set[tuple[str, ...]], ids: str, has_indexes: bool, has_output: bool
) -> None:
    answer = random_response(Random(seed))
    if {TEXT_ENDS, ("part.done",)} <= left_out:  # one of the three says where a part of a text begins
        left_out = left_out - {("part.added",)}
    events: list[Any] = copy.deepcopy([event for event in answer.events if isinstance(event, dict)])
    events = [*without(events[:-1], *(end for ends in left_out for end in ends)), events[-1]]
    if has_output:
        events = without(events, "item.done")
    else:
        events[-1]["response"]["output"] = []
    renamed(events, ids)
    for event in events if ids == "right" and not has_indexes else ():
        event.pop("output_index", None)
    chunks, completion = read(*events)
    whole = parse(answer.whole)
    assert joined(brought(chunks)) == joined(content(completion)) == joined(content(whole))
    assert (
        repair_surrogates("".join(chunk.refusal for chunk in chunks)) == completion.refusal == whole.refusal
    )
    if ids == "right" or has_output:
        assert completion.raw == answer.whole
