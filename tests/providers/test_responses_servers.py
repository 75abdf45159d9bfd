"""Streams of OpenAI's Responses API as compatible servers send them."""

from __future__ import annotations

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


def thought(text: str) -> JSON:
    return reasoning(content=[{"type": "reasoning_text", "text": text}])


def words(text: str) -> list[str]:
    return [f"{word} " for word in text.split()]


def counted(events: list[JSON], *, by_part: bool) -> list[JSON]:
    """Return the events with a "content_index" that goes on from event to event, or from part to part."""
    result, index = [], -1
    for event in events:
        if "content_index" in event:
            index += not by_part or event["type"].endswith("part.added")
        result.append({**event, "content_index": index} if "content_index" in event else event)
    return result


OPEN_MODEL = response(thought("We say hi. "), message("Hello to you ", annotations=[{"type": "file_path"}]))


@pytest.mark.parametrize("by_part", [False, True])
@pytest.mark.parametrize(
    "left_out",
    [
        (),
        ("part.added",),
        ("part.added", "part.done"),
        ("text.done",),
        (".done",),
        (".done", "part.added"),
    ],
)
@pytest.mark.parametrize("is_final", [True, False])
def test_a_content_index_that_counts_events_or_the_parts_of_all_items_does_not_matter(
    by_part: bool, left_out: tuple[str, ...], is_final: bool
) -> None:
    """vLLM counts the events (vllm-project/vllm#35184) or the parts of all items (#45742)."""
    events = counted(events_of(OPEN_MODEL, words), by_part=by_part and "part.added" not in left_out)
    kept = without(events, *left_out)
    chunks, completion = read(*kept) if is_final else read(*ended(*kept[:-1], output=[]))
    assert brought(chunks) == content(completion) == content(parse(OPEN_MODEL))
    if is_final:
        assert completion.raw == OPEN_MODEL
    assert completion.choices[0].text == completion.text == "Hello to you "


def test_a_text_after_the_end_of_another_is_a_part_of_its_own() -> None:
    parts = [{"type": "reasoning_text", "text": text} for text in ("A", "The end.")]
    whole = response(reasoning(content=parts))
    kept = without(events_of(whole)[:-1], "part.added", "part.done", "item.done")
    for events in (kept, without(kept, ".delta")):
        chunks, completion = read(*ended(*events, output=[]))
        assert brought(chunks)[1] == completion.reasoning == "A\n\nThe end."
        assert completion.raw["output"][0]["content"] == parts


def test_a_part_is_filled_at_its_position_after_a_part_of_an_unknown_type() -> None:
    parts = [{"type": "output_audio", "data": "A"}, *message()["content"]]
    begun = {"type": "response.output_item.added", "item": {**message(), "content": []}}
    delta = {"type": "response.output_text.delta", "item_id": "msg", "content_index": 1, "delta": "Hello"}
    last = {**message(), "content": [parts[0], {**parts[1], "text": ""}]}
    assert read(*ended(begun, delta, output=[last]))[1].raw["output"] == [{**message(), "content": parts}]


def test_the_reasoning_parts_of_vllm_are_paragraphs() -> None:
    parts = [{"type": "reasoning_text", "text": text} for text in ("A", "B")]
    events: list[JSON] = []
    for number, part in enumerate(parts):
        place = {"item_id": "rs", "output_index": 0, "content_index": number}
        events += [
            {"type": "response.reasoning_part.added", **place, "part": {**part, "text": ""}},
            {"type": "response.reasoning_text.delta", **place, "delta": part["text"]},
            {"type": "response.reasoning_part.done", **place, "part": part},
        ]
    for kept in (events, without(events, ".delta"), without(events, ".done")):
        chunks, completion = read(*ended(*kept, output=[]))
        assert "".join(chunk.reasoning for chunk in chunks) == completion.reasoning == "A\n\nB"
        assert completion.raw["output"] == [{"type": "reasoning", "content": parts}]


def test_the_events_that_openrouter_documents_are_an_answer() -> None:
    """See https://openrouter.ai/docs/api_reference/responses/basic-usage. A delta can be an object."""
    part = {"output_index": 0, "content_index": 0}
    whole = response(message("Once upon"))
    chunks, completion = read(
        {
            "type": "response.created",
            "response": {"id": "resp", "object": "response", "status": "in_progress"},
        },
        {"type": "response.output_item.added", "output_index": 0, "item": {**message(), "content": []}},
        {"type": "response.content_part.added", **part, "part": {"type": "text", "text": ""}},
        {"type": "response.content_part.delta", **part, "delta": "Once"},
        {"type": "response.content_part.delta", **part, "delta": {"type": "output_text", "text": " upon"}},
        {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.done", "response": {"status": "completed", "usage": whole["usage"]}},
    )
    assert [str(chunk) for chunk in chunks if chunk.text] == ["Once", " upon"]
    assert (completion.text, completion.finish_reason, completion.usage) == (
        "Once upon", "completed", ANSWER.usage
    )  # fmt: skip
    assert completion.raw["output"] == whole["output"]


def test_response_done_has_the_meaning_of_its_status() -> None:
    details = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    cut = {"type": "response.done", "response": details}
    assert read(*EVENTS[:-1], cut)[1].finish_reason == "max_output_tokens"
    assert read(*EVENTS[:-1], {"type": "response.done"})[1].finish_reason == "completed"


@pytest.mark.parametrize("delta", ["Hm", {"text": "Hm"}])
def test_the_reasoning_of_open_responses_is_reasoning(delta: Any) -> None:
    """https://www.openresponses.org/specification: "response.reasoning.delta"."""
    place = {"item_id": "rs", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": reasoning(content=[])},
        {"type": "response.reasoning.delta", **place, "delta": delta},
        {"type": "response.reasoning.delta", **place, "delta": "m"},
        {"type": "response.reasoning.done", **place, "text": "Hmm"},
    ]
    chunks, completion = read(*ended(*events, output=[]))
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Hm", "m"]
    assert completion.raw["output"] == [thought("Hmm")]
    assert read(*ended(events[0], events[-1], output=[]))[1].raw["output"] == [thought("Hmm")]


def test_a_part_of_the_type_text_is_text() -> None:
    part = {"type": "text", "text": "Hello"}
    place = {"item_id": "msg", "content_index": 0}
    start = {"type": "response.output_item.added", "item": {**message(), "content": []}}
    chunks, completion = read(
        *ended(start, {"type": "response.content_part.done", **place, "part": part}, output=[])
    )
    assert [str(chunk) for chunk in chunks if chunk.text] == ["Hello"]
    assert completion.raw["output"] == [{**message(), "content": [part]}]


@pytest.mark.parametrize("kind", ["function_call", "mcp_call"])
def test_arguments_as_an_object_are_json(kind: str) -> None:
    item = {"id": "c", "type": kind, "call_id": "c", "name": "f"}
    chunks, completion = read(
        *ended(
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}},
            {"type": f"response.{kind}_arguments.delta", "output_index": 0, "delta": {"x": 1}},
            output=[],
        )
    )
    assert completion.raw["output"] == [{**item, "arguments": '{"x": 1}'}]
    expected = [("c", "f", '{"x": 1}')] if kind == "function_call" else []
    assert brought(chunks)[2] == content(completion)[2] == expected


def test_the_events_of_llama_cpp_are_an_answer() -> None:
    """No positions; calls have no id, and their deltas have the "call_id" as "item_id" (server-task.cpp)."""
    calls = [
        {"type": "function_call", "call_id": call_id, "name": "f", "arguments": text, "status": "completed"}
        for call_id, text in (("fc_a", '{"x": 1}'), ("fc_b", '{"y": 2}'))
    ]
    whole = response(thought("Hm, hm"), message(), *calls)
    kept = without(events_of(response(*whole["output"][:2]))[:-1], "part.added")
    events: list[JSON] = [
        {name: event[name] for name in event if not name.endswith("_index")} for event in kept
    ]
    for item in calls:
        delta = {"type": "response.function_call_arguments.delta", "item_id": item["call_id"]}
        events.append({"type": "response.output_item.added", "item": {**item, "arguments": ""}})
        events += [{**delta, "delta": piece} for piece in (item["arguments"][:3], item["arguments"][3:])]
    events += [{"type": "response.output_item.done", "item": item} for item in calls]
    chunks, completion = read(*events, {"type": "response.completed", "response": whole})
    assert brought(chunks) == content(completion) == content(parse(whole))
    assert completion.raw == whole


def test_parts_that_the_last_event_has_whole_are_not_changed() -> None:
    """No event says where a part begins or ends: the stream's two parts are one."""
    cited = message("A", annotations=[{"type": "file_path", "file_id": "f"}])
    parts = [*cited["content"], *message("The end.")["content"]]
    for whole in (response({**message(), "content": parts}), response({**message(), "content": parts[::-1]})):
        chunks, completion = read(*without(events_of(whole), "part.added", ".done"))
        assert "".join(map(str, chunks)) == completion.choices[0].text
        assert completion.raw == whole


@pytest.mark.parametrize("lost", ["", None])
@pytest.mark.parametrize("has_output", [True, False])
def test_the_names_of_a_call_that_its_end_has_lost_are_those_of_its_start(
    lost: str | None, has_output: bool
) -> None:
    """router-for-me/CLIProxyAPI#1004."""
    nameless = {**call(), "name": lost, "call_id": lost}
    *begun, end, _ = events_of(response(call()))
    chunks, completion = read(*ended(*begun, {**end, "item": nameless}, output=[nameless] * has_output))
    assert brought(chunks)[2] == content(completion)[2] == [("call1", "f", '{"x": 1}')]
    assert completion.raw["output"] == [call()]


# What only the last event has.


def test_an_item_that_has_begun_but_comes_whole_only_in_the_last_event_is_brought_by_it() -> None:
    assert_whole(*without(EVENTS, ".delta", ".done"))
    assert_whole(*without(EVENTS, ".delta", ".done", "part.added", "annotation.added"))


def test_the_last_event_brings_what_several_items_have() -> None:
    refused = {"type": "refusal", "refusal": "No."}
    cited = message(annotations=[{"type": "url_citation", "url": "https://a.test"}])["content"]
    items = [{**message(), "id": f"msg{number}", "content": [refused, *cited]} for number in range(2)]
    whole = response(reasoning("A"), reasoning("B", id="rs2"), *items)
    for left_out in ((".delta", ".done", "part.added", "annotation.added"), (".delta", ".done", ".added")):
        chunks, completion = read(*without(events_of(whole), *left_out))
        assert brought(chunks) == content(completion) == content(parse(whole))
        assert "".join(chunk.refusal for chunk in chunks) == completion.refusal == "No.No."


def test_the_last_event_brings_its_items_beside_one_that_it_does_not_have() -> None:
    search = {"type": "web_search_call", "id": "ws"}
    refused = {"type": "refusal", "refusal": "No."}
    cited = message(annotations=[{"type": "url_citation", "url": "https://a.test"}])
    whole = response(reasoning("A"), {**cited, "content": [refused, *cited["content"]]}, call())
    begun = {"type": "response.output_item.added", "output_index": 0, "item": search}
    chunks, completion = read(begun, {"type": "response.completed", "response": whole})
    assert brought(chunks) == content(completion) == content(parse(whole))
    assert [chunk.refusal for chunk in chunks if chunk.refusal] == ["No."]
    assert completion.raw == whole


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("has_index", [True, False])
def test_an_item_that_only_the_last_event_has_is_brought_by_it(position: int, has_index: bool) -> None:
    items = [message("A"), {**message("The end."), "id": "msg2"}]
    whole = response(*items)
    events = [event for event in events_of(whole)[:-1] if event.get("output_index", position) == position]
    if not has_index:
        events = [{name: event[name] for name in event if name != "output_index"} for event in events]
    chunks, completion = read(*events, {"type": "response.completed", "response": whole})
    assert chunks[-1].text == items[1 - position]["content"][0]["text"]
    assert completion.raw == whole


def test_an_item_of_the_stream_is_one_item_of_the_last_event() -> None:
    items = [{**message("Hello"), "id": "same"}, {**message("A"), "id": "same"}]
    whole = response(*items)
    events = events_of(response(items[0]))[:-1]
    chunks, completion = read(*events, {"type": "response.completed", "response": whole})
    assert "".join(map(str, chunks)) == "HelloA"
    assert completion.raw == whole


# What comes twice.


@pytest.mark.parametrize("field", ["id", "status"])
@pytest.mark.parametrize("item", WHOLE["output"], ids=["reasoning", "message", "call", "call"])
def test_an_item_that_ends_twice_with_another_id_or_status_counts_once(item: JSON, field: str) -> None:
    ends = [
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, field: value}}
        for value in ("a", "b")
    ]
    chunks, completion = read(*ended(*ends, output=[]))
    assert brought(chunks) == content(completion) == content(parse(response(item)))
    assert completion.raw["output"] == [{**item, field: "b"}]


def test_a_position_as_text_is_a_position() -> None:
    for left_out in ((), ("item.added", "part.added")):
        events = [
            {name: value for name, value in event.items() if name != "item_id"}
            for event in without(EVENTS, *left_out)
        ]
        as_text = [
            {**event, "output_index": str(event["output_index"])} if "output_index" in event else event
            for event in events
        ]
        assert_whole(*as_text)


def test_items_that_share_a_position_and_have_no_start_are_told_apart_by_their_ids() -> None:
    whole = response(message("A"), {**message("The end."), "id": "msg2"})
    events = [{**event, "output_index": 0} for event in without(events_of(whole), "item.added", "part.added")]
    chunks, completion = read(*events)
    assert "".join(map(str, chunks)) == completion.text == "AThe end."
    assert completion.raw == whole


@pytest.mark.parametrize("name", ["item", "part"])
@pytest.mark.parametrize("kind", ["added", "done"])
def test_an_event_without_its_item_or_part_adds_nothing(name: str, kind: str) -> None:
    """Open Responses allows it of items (anomalyco/opencode#45330)."""
    for prefix in {"item": ["output_item"], "part": ["content_part", "reasoning_summary_part"]}[name]:
        empty = {"type": f"response.{prefix}.{kind}", "output_index": 0, "item_id": "rs", name: None}
        assert_whole(EVENTS[0], empty, *EVENTS[1:])


def test_the_end_of_an_item_without_a_type_is_a_chunk_without_text() -> None:
    end = {"type": "response.output_item.done", "item": {"id": "x"}}
    [chunk, *_], completion = read(*ended(end, output=[]))
    assert (chunk.raw, brought([chunk])) == (end, ("", "", [], ()))
    assert completion.raw["output"] == [{"id": "x"}]
