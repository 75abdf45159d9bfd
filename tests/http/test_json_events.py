"""The events of ``event_stream`` as JSON."""

from __future__ import annotations

from typing import Any

from llm_pool.http.events import JSONEvents
from llm_pool.providers.results import Choice, Chunk, Citation, Completion, Timing, ToolCall, ToolCallPart
from llm_pool.providers.usage import Usage
from tests.fixtures.events import events_of

RAW: dict[str, Any] = {"secret": "the provider's own object"}
TOKENS = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
FIRST = Choice(
    reasoning="I think.",
    refusal="I may not.",
    citations=(Citation("https://a.example", "A", "Said.", RAW),),
    message={"role": "assistant", "content": "Hello"},
)
COMPLETION = Completion(
    "Hello",
    "m",
    "stop",
    (ToolCall("call_1", "add", '{"a": 1}', RAW),),
    Usage(3, 5, {**RAW, **TOKENS}),
    timing=Timing(total=1.5),
    raw=RAW,
    choices_in=lambda raw: (FIRST,),
)


def test_the_last_event_has_what_the_answer_brought() -> None:
    """But no object of the provider, and no reasoning: a visitor does not see them unless asked for."""
    (done,) = events_of([JSONEvents().done(COMPLETION).encode()])
    assert (done.name, done.id) == ("done", "end")
    assert done.data == {
        "text": "Hello",
        "refusal": "I may not.",
        "citations": [{"url": "https://a.example", "title": "A", "text": "Said."}],
        "model": "m",
        "finish_reason": "stop",
        "tool_calls": [{"id": "call_1", "name": "add", "arguments": '{"a": 1}'}],
        "usage": {"input_tokens": 3, "output_tokens": 5, "cached_tokens": 2, "reasoning_tokens": 1},
        "timing": {
            "queued": 0.0,
            "dialing": 0.0,
            "first_byte": None,
            "first_token": None,
            "total": 1.5,
            "reused": False,
        },
    }


def test_an_answer_without_usage_and_timing_has_null_for_them() -> None:
    (done,) = events_of([JSONEvents().done(Completion("Hello")).encode()])
    assert done.data["usage"] is None
    assert done.data["timing"] is None


def test_each_event_has_the_next_id() -> None:
    events = JSONEvents()
    sent = events.chunks([Chunk("a", {}), Chunk("", {}, reasoning="hm"), Chunk("b", {})])
    sent += events.chunks([Chunk("c", {})])
    assert [(each.id, each.data) for each in events_of([sent.encode()])] == [
        ("1", {"text": "a"}),
        ("2", {"text": "b"}),
        ("3", {"text": "c"}),
    ]


def test_what_is_included_becomes_events_of_its_own() -> None:
    events = JSONEvents(["reasoning", "tool_calls"])
    begin = ToolCallPart(0, "call_1", "add")
    chunks = [
        Chunk("", {}, reasoning="hm"),
        Chunk("Hi", {}, None, [begin], reasoning="so"),
        Chunk("", {}, None, [ToolCallPart(0, arguments="{}"), ToolCallPart(1, "call_2", "now")]),
    ]
    assert [(each.name, each.id, each.data) for each in events_of([events.chunks(chunks).encode()])] == [
        ("reasoning", "1", {"text": "hm"}),
        ("reasoning", "2", {"text": "so"}),
        ("message", "3", {"text": "Hi"}),
        ("tool_call", "4", {"index": 0, "id": "call_1", "name": "add", "arguments": ""}),
        ("tool_call", "5", {"index": 0, "id": "", "name": "", "arguments": "{}"}),
        ("tool_call", "6", {"index": 1, "id": "call_2", "name": "now", "arguments": ""}),
    ]


def test_what_is_not_included_brings_no_event() -> None:
    chunk = Chunk("", {}, None, [ToolCallPart(0, "call_1", "add")], reasoning="hm")
    assert JSONEvents().chunks([chunk]) == ""


def test_the_last_event_has_the_reasoning_and_the_message_if_they_are_included() -> None:
    (done,) = events_of([JSONEvents(["reasoning"]).done(COMPLETION).encode()])
    assert done.data["reasoning"] == "I think."
    assert "message" not in done.data
    (done,) = events_of([JSONEvents(["message"]).done(COMPLETION).encode()])
    assert done.data["message"] == {"role": "assistant", "content": "Hello"}
    assert "reasoning" not in done.data
