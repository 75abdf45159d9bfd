"""Streams of OpenAI's Responses API: what servers leave out, tell twice or send otherwise."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from llm_pool import exceptions
from tests.providers.responses_events import (
    ANSWER,
    EVENTS,
    HEAD,
    WHOLE,
    api,
    assert_whole,
    brought,
    call,
    content,
    ended,
    events_of,
    frames,
    message,
    read,
    reasoning,
    response,
    without,
)

JSON = dict[str, Any]


# What servers leave out.


@pytest.mark.parametrize(
    "left_out",
    [
        (),
        (".delta",),
        (".delta", "text.done", "arguments.done"),
        (".delta", "text.done", "arguments.done", "part.done", "part.added", "annotation.added"),
        (
            ".delta",
            "text.done",
            "arguments.done",
            "part.done",
            "part.added",
            "annotation.added",
            "item.added",
        ),
        (".done",),
        ("text.done", "arguments.done", "part.done", "part.added"),
    ],
    ids=["nothing", "deltas", "texts", "parts", "starts", "ends", "ends of texts"],
)
def test_a_stream_without_some_events_is_whole(left_out: tuple[str, ...]) -> None:
    assert_whole(*without(EVENTS, *left_out))


@pytest.mark.parametrize("output", [[], None, WHOLE["output"][:1]])
@pytest.mark.parametrize(
    "left_out", [(), (".delta",), (".delta", "text.done", "arguments.done", "part.done")]
)
def test_without_the_final_output_the_answer_is_merged_from_its_items(
    output: Any, left_out: tuple[str, ...]
) -> None:
    assert_whole(*ended(*without(EVENTS[:-1], *left_out), output=output))


def test_without_the_ends_of_items_too_the_answer_is_merged_from_the_deltas() -> None:
    chunks, completion = read(*ended(*without(EVENTS[:-1], ".done"), output=[]))
    assert brought(chunks) == content(completion) == content(ANSWER)
    assert [item["type"] for item in completion.raw["output"]] == [item["type"] for item in WHOLE["output"]]
    assert completion.raw["output"][1]["content"] == WHOLE["output"][1]["content"]
    assert completion.raw["output"][0]["summary"] == WHOLE["output"][0]["summary"]


def test_a_part_has_the_fields_of_its_start() -> None:
    plain = response(message())
    completion = read(*ended(*without(events_of(plain)[:-1], ".done"), output=[]))[1]
    assert completion.raw["output"][0]["content"] == plain["output"][0]["content"]


@pytest.mark.parametrize(
    ("left_out", "brings"),
    [
        ((".delta",), "response.output_text.done"),
        ((".delta", "text.done"), "response.content_part.done"),
        ((".delta", "text.done", "part.done"), "response.output_item.done"),
        ((".delta", ".done"), "response.completed"),
    ],
)
def test_the_first_event_with_a_whole_text_brings_it(left_out: tuple[str, ...], brings: str) -> None:
    chunks, _ = read(*without(events_of(response(message())), *left_out))
    assert [chunk.raw["type"] for chunk in chunks if chunk.text] == [brings]


def test_each_reasoning_that_comes_whole_is_a_paragraph() -> None:
    two = response(reasoning("A", id="rs1"), reasoning("B", id="rs2"))
    chunks, completion = read(*without(events_of(two), ".delta", "text.done", "part.done"))
    assert "".join(chunk.reasoning for chunk in chunks) == completion.reasoning == "A\n\nB"


def test_without_a_final_response_the_answer_has_that_of_the_beginning() -> None:
    completion = read(*EVENTS[:-1], {"type": "response.incomplete"})[1]
    assert completion.raw == {**WHOLE, "status": "incomplete", "usage": None}


def test_what_the_final_output_has_less_than_the_deltas_is_filled() -> None:
    poor = copy.deepcopy(WHOLE["output"])
    poor[0]["summary"] = []
    poor[1]["content"] = []
    poor[2]["arguments"] = ""
    completion = read(*ended(*EVENTS[:-1], output=poor))[1]
    assert content(completion) == content(ANSWER)
    poor[1]["content"] = [{"type": "output_text", "text": "r."}]
    assert read(*ended(*EVENTS[:-1], output=poor))[1].raw == WHOLE


def test_the_last_event_alone_is_an_answer() -> None:
    assert_whole(EVENTS[-1])
    refused = response({**message(), "content": [{"type": "refusal", "refusal": "No."}]})
    assert [chunk.refusal for chunk in read(events_of(refused)[-1])[0]] == ["No."]


def test_tool_calls_that_only_the_last_event_has_are_brought_by_it() -> None:
    text = [event for event in EVENTS[:-1] if event.get("output_index", 0) < 2]
    assert_whole(*text, EVENTS[-1])


def test_an_item_that_comes_whole_at_its_end_brings_its_refusal() -> None:
    refused = response({**message(), "content": [{"type": "refusal", "refusal": "No."}]})
    for left_out in ((".delta",), (".delta", "refusal.done", "part.done")):
        chunks, completion = read(*without(events_of(refused), *left_out))
        assert [chunk.refusal for chunk in chunks if chunk.refusal] == ["No."] == [completion.refusal]


def test_deltas_without_any_place_belong_to_one_text() -> None:
    deltas = [{"type": "response.output_text.delta", "delta": piece} for piece in ("Fo", "ur.")]
    chunks, completion = read(*ended(*deltas, output=[]))
    assert [str(chunk) for chunk in chunks] == ["Fo", "ur.", ""]
    [item] = completion.raw["output"]
    assert item == {"type": "message", "content": [{"type": "output_text", "text": "Four."}]}
    assert completion.message["output"] == [{**item, "role": "assistant"}]


# Reasoning.


def test_of_a_summary_and_the_reasoning_itself_one_is_the_reasoning() -> None:
    both = response(reasoning("short", content=[{"type": "reasoning_text", "text": "long"}]), message())
    chunks, completion = read(*events_of(both))
    assert completion.raw == both
    assert completion.reasoning == "short"
    assert "".join(chunk.reasoning for chunk in chunks) == "long"  # which comes first


# Complete or cut.


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
def test_without_its_last_event_a_stream_is_cut(end: bytes) -> None:
    reader = api.stream_reader(HEAD)
    reader.feed(frames(*EVENTS[:-1]) + end)
    assert not reader.is_complete
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        reader.end()
    assert (caught.value.partial, caught.value.request_id) == ("Four.", "req_1")


def test_done_before_the_last_event_ends_the_stream() -> None:
    """A server may leave the connection open after it."""
    reader = api.stream_reader(HEAD)
    chunks = reader.feed(frames(*EVENTS[:-1]) + b"data: [DONE]\n\n")
    assert brought(chunks)[0] == "Four."
    assert reader.finished
    with pytest.raises(exceptions.StreamInterrupted, match=r'"\[DONE\]" arrived before') as caught:
        reader.completion()
    assert caught.value.partial == "Four."


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_the_last_event_ends_the_stream(status: str) -> None:
    reader = api.stream_reader(HEAD)
    chunks = reader.feed(
        frames(*EVENTS[:-1], {"type": f"response.{status}", "response": {**WHOLE, "status": status}})
    )
    assert reader.finished
    assert (chunks[-1].finish_reason, chunks[-1].usage) == (status, ANSWER.usage)
    assert reader.feed(b"data: nonsense\n\n") == []
    assert reader.completion().finish_reason == status


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_is_an_error_with_the_text_so_far(status: str) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Slow down"} if status == "failed" else None
    failed = {"type": f"response.{status}", "response": response(status=status, error=error)}
    reader = api.stream_reader(HEAD)
    reader.feed(frames(*EVENTS[:-1], failed))
    assert reader.finished is (error is not None)  # otherwise the reason can follow
    with pytest.raises(exceptions.APIError) as caught:
        reader.completion()
    assert type(caught.value) is (exceptions.RateLimited if error else exceptions.APIError)
    assert caught.value.partial == "Four."
    assert "secret" not in f"{caught.value}{caught.value.body}"


@pytest.mark.parametrize("status", ["completed", "in_progress", None])
def test_the_event_of_a_failure_is_one_whatever_the_status_of_its_response(status: str | None) -> None:
    with pytest.raises(exceptions.ServerFailed) as caught:
        read(
            *EVENTS[:-1],
            {
                "type": "response.failed",
                "response": response(status=status, error={"code": "server_error", "message": "Oops"}),
            },
        )
    assert (caught.value.partial, caught.value.body) == (
        "Four.", {"code": "server_error", "message": "Oops"}
    )  # fmt: skip


FAILED: JSON = {"type": "response.failed", "response": response(status="failed")}
KEEPALIVE: JSON = {"type": "keepalive", "error": None}
LIMITED: JSON = {"code": "rate_limit_exceeded", "message": "Your requests have exceeded rate limit."}


@pytest.mark.parametrize("between", [[], [KEEPALIVE]])
@pytest.mark.parametrize("cut", [0, 1, 40])
def test_the_reason_of_a_failure_can_follow_in_an_event_of_its_own(between: list[JSON], cut: int) -> None:
    """Azure sends it so (earendil-works/pi#7983, maximhq/bifrost#6419)."""
    reader = api.stream_reader(HEAD)
    reason = frames({"type": "error", "error": LIMITED})
    assert reader.feed(frames(*EVENTS[:-1], FAILED, *between) + reason[:cut])
    assert reader.is_complete  # so that the pool reads on for a second at most
    assert not reader.finished
    with pytest.raises(exceptions.RateLimited, match="exceeded rate limit") as caught:
        reader.feed(reason[cut:])
    assert reader.finished
    assert (caught.value.partial, caught.value.retry_after) == ("Four.", None)
    with pytest.raises(exceptions.RateLimited):
        reader.completion()


@pytest.mark.parametrize(
    "after", [b"", frames(KEEPALIVE), b"data: [DONE]\n\n", b"data: {", b"data: nonsense\n\n"]
)
def test_a_failure_without_a_reason_is_an_error_at_the_end(after: bytes) -> None:
    reader = api.stream_reader(HEAD)
    assert reader.feed(frames(*EVENTS[:-1], FAILED) + after)
    if not reader.finished:
        reader.end()
    with pytest.raises(exceptions.APIError, match="failed") as caught:
        reader.completion()
    assert (type(caught.value), caught.value.partial) == (exceptions.APIError, "Four.")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "response.failed", "error": {"code": "server_error", "message": "Oops"}}, "Oops"),
        ({"type": "error", "code": "server_error", "message": "Oops"}, "Oops"),
        ({"type": "error"}, "Late"),
    ],
)
def test_an_error_beside_a_response_is_an_error_without_its_instructions(event: JSON, words: str) -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "Late"})
    with pytest.raises(exceptions.ServerFailed, match=words) as caught:
        read(*EVENTS[:-1], {**event, "response": failed})
    assert "secret" not in f"{caught.value}{caught.value.body}"


def test_a_second_answer_in_the_middle_of_the_first_is_an_error() -> None:
    with pytest.raises(exceptions.InvalidResponse, match="a second answer") as caught:
        read(*EVENTS[:-1], *EVENTS)
    assert caught.value.partial == "Four."
    assert "secret" not in f"{caught.value}{caught.value.body}"


def test_a_last_event_with_a_text_of_the_wrong_type_is_an_error() -> None:
    output = [*WHOLE["output"], {**message(), "id": "other", "content": [{"type": "output_text", "text": 5}]}]
    for events in (EVENTS[:-1], []):
        with pytest.raises(exceptions.InvalidResponse, match="events that do not form an answer") as caught:
            read(*ended(*events, output=output))
        assert caught.value.partial == ("Four." if events else "")
        assert "secret" not in f"{caught.value}{caught.value.body}"


def test_json_in_the_place_of_a_stream_is_read() -> None:
    reader = api.stream_reader(HEAD)
    reader.feed(json.dumps(WHOLE, indent=1).encode())
    chunks = reader.end()
    assert brought(chunks) == content(reader.completion())
    assert reader.completion().raw == WHOLE
    assert api.parse_completion(HEAD, frames(*EVENTS)).raw == WHOLE
    with pytest.raises(exceptions.InvalidResponse):
        api.stream_reader(HEAD).feed(b'data: {"object": "response"}\n\n')
    with pytest.raises(exceptions.ServerFailed) as caught:
        api.stream_reader(HEAD).feed(
            json.dumps(response(status="failed", error={"code": "server_error"})).encode() + b"\n\n"
        )
    assert "secret" not in str(caught.value.body)


# Other events.


def test_events_of_the_providers_own_tools_are_chunks_without_text() -> None:
    code = {
        "id": "ci",
        "type": "code_interpreter_call",
        "status": "completed",
        "code": "1+1",
        "outputs": None,
    }
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**code, "code": ""}},
        {"type": "response.code_interpreter_call.in_progress", "output_index": 0, "item_id": "ci"},
        {
            "type": "response.code_interpreter_call_code.delta",
            "output_index": 0,
            "item_id": "ci",
            "delta": "1+1",
        },
        {"type": "response.brand_new.delta", "delta": {"x": 1}},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"},
    ]
    chunks, completion = read(*ended(*events, output=[]))
    assert brought(chunks) == ("", "", [], ())
    assert [chunk.raw for chunk in chunks[:-1]] == events
    assert completion.raw["output"] == [code]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "response.output_text.delta", "delta": "a"}, True),
        ({"type": "response.refusal.delta", "delta": "a"}, True),
        ({"type": "response.reasoning_summary_text.delta", "delta": "a"}, True),
        ({"type": "response.reasoning_text.done", "text": "a"}, True),
        ({"type": "response.refusal.done", "refusal": "a"}, True),
        ({"type": "response.mcp_call_arguments.delta", "delta": "a"}, True),
        ({"type": "response.output_item.added", "item": call()}, True),
        ({"type": "response.output_item.done", "item": {"type": "web_search_call"}}, True),
        ({"type": "response.image_generation_call.partial_image", "partial_image_b64": "A"}, True),
        (EVENTS[-1], True),
        ({"type": "response.output_item.added", "item": reasoning()}, False),
        ({"type": "response.output_item.added", "item": None}, False),
        ({"type": "response.output_text.delta", "delta": ""}, False),
        ({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}, False),
        ({"type": "response.web_search_call.searching", "item_id": "ws"}, False),
        ({"type": "response.in_progress", "response": {}}, False),
        ({"type": "keepalive", "sequence_number": 3}, False),
    ],
)
def test_pieces_and_ends_of_items_are_content_and_starts_are_not(event: JSON, expected: bool) -> None:
    reader = api.stream_reader(HEAD)
    [chunk] = reader.feed(frames(event))
    assert reader.is_content(chunk) is expected


def test_halves_of_a_character_in_two_deltas_are_joined() -> None:
    deltas = [{"type": "response.output_text.delta", "delta": half} for half in ("\ud83d", "\ude00")]
    _, completion = read(*ended(*deltas, output=[]))
    assert completion.text == "\U0001f600"
    assert completion.raw["output"][0]["content"][0]["text"] == "\U0001f600"
