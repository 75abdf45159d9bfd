"""Items in streams of OpenAI's Responses API, found by their ids, indexes and call ids, right or wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.providers.responses_events import (
    ANSWER,
    EVENTS,
    WHOLE,
    assert_whole,
    brought,
    call,
    content,
    ended,
    events_of,
    message,
    parse,
    read,
    reasoning,
    response,
    without,
)

JSON = dict[str, Any]


def test_an_id_of_its_own_in_each_event_does_not_matter() -> None:
    """GitHub Copilot makes one for each event."""
    events = copy.deepcopy(EVENTS)
    for number, event in enumerate(events):
        for holder in (event.get("item") or {}, *event.get("response", {}).get("output", ())):
            holder["id"] = f"{number}-{holder.get('id')}"
        event["item_id"] = f"{number}-"
    chunks, completion = read(*events)
    assert brought(chunks) == content(completion) == content(ANSWER)
    assert completion.raw == events[-1]["response"]


# The later texts are longer: none may take the place of an earlier one.
SEVERAL = response(
    *(reasoning("A"), message("B"), call(), message("Four"), call('{"city": "Rome"}', 2)),
    *(reasoning("Hm, hm"), message("The end.")),
)


@pytest.mark.parametrize("identifier", ["", "same", None, "of its type"])
@pytest.mark.parametrize("one_index", [False, True])
@pytest.mark.parametrize(
    "left_out",
    [
        (),
        (".delta", "text.done", "arguments.done"),
        (".delta", "text.done", "arguments.done", "item.added", "part.done", "part.added"),
    ],
    ids=["nothing", "texts", "all but the ends of items"],
)
def test_ids_and_indexes_that_several_items_share_do_not_matter(
    identifier: str | None, one_index: bool, left_out: tuple[str, ...]
) -> None:
    events = copy.deepcopy(without(events_of(SEVERAL), *left_out))
    for event in events if identifier != "of its type" else []:
        for holder in (event.get("item") or {}, *event.get("response", {}).get("output", ())):
            holder["id"] = identifier
        event["item_id"] = identifier
    for event in events if one_index else []:
        event["output_index"] = 0
    whole = events[-1]["response"]
    for last in (whole, {**whole, "output": []}):
        chunks, completion = read(*events[:-1], {"type": "response.completed", "response": last})
        assert brought(chunks) == content(completion) == content(parse(SEVERAL))
        assert completion.raw == whole


def test_items_without_ends_that_share_an_id_are_told_apart_by_type_and_call_id() -> None:
    events = copy.deepcopy(without(EVENTS, ".done"))
    for event in events:
        for holder in (event.get("item") or {}, *event.get("response", {}).get("output", ())):
            holder["id"] = "same"
        event["item_id"] = "same"
    chunks, completion = read(*events)
    assert brought(chunks) == content(completion) == content(ANSWER)
    assert completion.raw == events[-1]["response"]


def test_an_item_of_the_final_output_is_filled_from_its_own_deltas() -> None:
    begun = events_of(response(reasoning("Hm"), message()))[:-1]
    search = {"type": "web_search_call", "id": "ws"}
    completion = read(*ended(*begun, output=[message(""), search]))[1]
    assert completion.raw["output"] == [message(), search]


def test_calls_that_share_an_id_are_told_apart_by_their_call_ids() -> None:
    items = [{**call(), "id": "same"}, {**call('{"city": "Rome"}', 2), "id": "same"}]
    starts = [{"type": "response.output_item.added", "item": {**item, "arguments": ""}} for item in items]
    ends = [{"type": "response.output_item.done", "item": item} for item in items]
    for output in ([], items, [*items, message("")]):
        chunks, completion = read(*ended(*starts, *ends, output=output))
        assert brought(chunks)[2] == content(completion)[2]
        assert completion.raw["output"] == (output or items)


def test_one_index_for_all_items_does_not_matter() -> None:
    events = [{**event, "output_index": 0} for event in EVENTS]
    assert_whole(*events)
    whole = without(events, ".delta", "text.done", "arguments.done", "part.done", "part.added", "item.added")
    assert_whole(*ended(*whole[:-1], output=[]))


def test_items_are_in_the_order_of_their_indexes() -> None:
    swapped = [event for index in (1, 0, 3, 2) for event in EVENTS if event.get("output_index") == index]
    completion = read(EVENTS[0], *ended(*swapped, output=[]))[1]
    assert completion.raw == WHOLE


def test_an_item_that_is_told_twice_counts_once() -> None:
    twice = [event for event in EVENTS for _ in range(2 if "output_item" in event["type"] else 1)]
    assert_whole(*twice)
    assert_whole(*without(twice, ".delta", "text.done", "arguments.done", "part.done"))


def test_deltas_are_told_apart_by_their_ids_alone() -> None:
    kind = "response.function_call_arguments.delta"
    pieces = [("fc1", '{"x"'), ("fc2", '{"y"'), ("fc1", ": 1}"), ("fc2", ": 2}")]
    deltas = [{"type": kind, "item_id": identifier, "delta": piece} for identifier, piece in pieces]
    items = WHOLE["output"][2:]
    ends = [{"type": "response.output_item.done", "item": item} for item in items]
    chunks, completion = read(*ended(*deltas, *ends, output=[]))
    assert brought(chunks)[2] == content(completion)[2] == content(ANSWER)[2]
    assert completion.raw["output"] == items


def test_a_call_without_an_index_is_found_by_its_call_id() -> None:
    items = WHOLE["output"][2:]
    starts = [
        {"type": "response.output_item.added", "item": {**item, "id": None, "arguments": ""}}
        for item in items
    ]
    ends = [{"type": "response.output_item.done", "item": item} for item in items]
    chunks, completion = read(*ended(*starts, *ends, output=[]))
    assert brought(chunks)[2] == content(completion)[2] == content(ANSWER)[2]


def test_the_name_of_a_tool_can_come_at_its_end() -> None:
    events = copy.deepcopy(EVENTS)
    for event in events:
        if event["type"] == "response.output_item.added" and event["output_index"] == 2:
            event["item"]["name"] = event["item"]["call_id"] = None
    chunks = read(*events)[0]
    assert brought(chunks)[2][0][1] == "f"


def test_empty_ids_are_no_ids() -> None:
    kind = "response.output_text.delta"
    deltas = [
        {"type": kind, "output_index": index, "item_id": "", "delta": piece}
        for index, piece in ((0, "A"), (1, "B"), (0, "a"), (1, "b"))
    ]
    output = read(*ended(*deltas, output=[]))[1].raw["output"]
    assert [item["content"][0]["text"] for item in output] == ["Aa", "Bb"]
