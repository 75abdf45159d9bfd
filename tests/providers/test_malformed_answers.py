"""Responses of a shape that the API does not describe: read if possible, otherwise an ``LLMPoolError``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.providers.results import Chunk, Completion, ToolCall, ToolCallPart
from llm_pool.providers.usage import Usage

HEAD = Head(200, {"x-request-id": "req_1"})


def read(provider: str, *events: Any) -> tuple[list[Chunk], Completion]:
    reader = PROVIDERS[provider]().stream_reader(HEAD)
    chunks = []
    for event in events:
        kind = event.get("type", "message") if isinstance(event, dict) else "message"
        data = event if isinstance(event, str) else json.dumps(event)
        chunks += reader.feed(f"event: {kind}\ndata: {data}\n\n".encode())
    chunks += reader.end()
    assert all(type(chunk.text) is str for chunk in chunks)
    completion = reader.completion()
    assert "".join(map(str, chunks)) == completion.text == reader.partial
    return chunks, completion


def parse(provider: str, answer: dict[str, Any]) -> Completion:
    return PROVIDERS[provider]().parse_completion(HEAD, json.dumps(answer).encode())


def of_openai(*deltas: Any, usage: Any = None) -> Completion:
    choices = [{"choices": [{"index": 0, "delta": delta}]} for delta in ({"content": "Hel"}, *deltas)]
    return read("openai", *choices, {"choices": [], "usage": usage}, "[DONE]")[1]


def of_anthropic(*events: Any, usage: Any = None) -> Completion:
    return read(
        "anthropic",
        {"type": "message_start", "message": {"id": "m", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hel"}},
        *events,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    )[1]


def start(index: Any, block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: Any, fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


TOOL = start(1, {"type": "tool_use", "id": "t", "name": "n", "input": {}})
THINKING = start(1, {"type": "thinking", "thinking": ""})

CALLS: dict[str, tuple[str, str, Callable[[Any], Completion]]] = {
    "openai, whole": (
        "prompt_tokens",
        "completion_tokens",
        lambda usage: parse("openai", {"choices": [{"message": {"content": "x"}}], "usage": usage}),
    ),
    "openai, streamed": ("prompt_tokens", "completion_tokens", lambda usage: of_openai(usage=usage)),
    "anthropic, whole": (
        "input_tokens",
        "output_tokens",
        lambda usage: parse("anthropic", {"content": [], "usage": usage}),
    ),
    "anthropic, streamed": ("input_tokens", "output_tokens", lambda usage: of_anthropic(usage=usage)),
}


@pytest.mark.parametrize("call_name", CALLS)
@pytest.mark.parametrize("count", ["12", "", [1], {}, {"a": 1}, True, -1, 1.5, float("nan"), None, 10**400])
def test_an_invalid_number_of_tokens_is_0(call_name: str, count: Any) -> None:
    read, written, call = CALLS[call_name]
    found = call({read: count, written: 3}).usage
    assert found == Usage(0, 3)
    assert type(found.input_tokens) is int


@pytest.mark.parametrize("call_name", CALLS)
@pytest.mark.parametrize("usage", ["x", [1], 5, True, [["a", 1]]])
def test_a_usage_that_is_not_an_object_is_none(call_name: str, usage: Any) -> None:
    assert CALLS[call_name][2](usage).usage is None


@pytest.mark.parametrize(
    "events",
    [
        [start(1, {"text": "x"})],
        [start(1, {"type": "text", "text": 5})],
        [start(1, {"type": "text", "text": ["a"]})],
        [start("a", {"type": "text", "text": ""})],
        [start(None, {"type": "text", "text": ""})],
        [start(1, None)],
        [delta(0, {"type": "text_delta", "text": 5})],
        [delta(0, {"type": "text_delta", "text": ["a"]})],
        [delta(0, {"text": "a"})],
        [delta(0, None)],
        [delta(7, {"type": "text_delta", "text": "a"})],
        [delta([], {"type": "text_delta", "text": "a"})],
        [delta(0, {"type": "citations_delta"})],
        [TOOL, delta(1, {"type": "input_json_delta", "partial_json": {"a": 1}})],
        [TOOL, delta(1, {"type": "input_json_delta", "partial_json": 5})],
        [{"type": "message_start", "message": [["a", 1]]}],
        [{"type": "message_start", "message": None}],
        [{"type": "message_delta", "delta": [["stop_reason", "x"]]}],
    ],
)
def test_an_anthropic_event_of_an_unexpected_shape_is_an_invalid_response(events: list[Any]) -> None:
    with pytest.raises(exceptions.InvalidResponse) as caught:
        of_anthropic(*events)
    assert (caught.value.partial, caught.value.request_id) == ("Hel", "req_1")


@pytest.mark.parametrize(
    "events",
    [
        [start(1, {"type": "text"})],
        [start(1, {"type": "text", "text": None})],
        [start("1", {"type": "text", "text": None})],
        [delta(0, {"type": "text_delta", "text": None})],
        [delta(0, {"type": "text_delta"})],
        [TOOL, delta(1, {"type": "input_json_delta", "partial_json": None})],
        [THINKING, delta(1, {"type": "thinking_delta", "thinking": None})],
        [THINKING, delta(1, {"type": "thinking_delta", "thinking": 5})],
        [
            start(1, {"type": "thinking", "thinking": 5}),
            delta(1, {"type": "thinking_delta", "thinking": "a"}),
        ],
        [delta(0, {"type": "brand_new_delta", "x": None})],
    ],
)
def test_a_field_missing_from_an_anthropic_event_is_read_as_empty(events: list[Any]) -> None:
    assert of_anthropic(*events).text == "Hel"


def test_arguments_nested_too_deeply_stay_as_the_model_wrote_them() -> None:
    deep = "[" * 100_000
    completion = of_anthropic(TOOL, delta(1, {"type": "input_json_delta", "partial_json": deep}))
    assert completion.tool_calls[0].arguments == deep


@pytest.mark.parametrize("depth", range(100, 900, 50))
def test_a_deeply_nested_answer_raises_only_errors_of_this_package(depth: int) -> None:
    nested: dict[str, Any] = {}
    for _ in range(depth):
        nested = {"a": nested}
    tool = {"type": "tool_use", "input": nested}
    for call in (
        lambda: of_openai({"new": nested}),
        lambda: of_anthropic(start(1, tool)),
        lambda: parse("anthropic", {"content": [tool]}),
        lambda: parse(
            "openai", {"choices": [{"message": {"tool_calls": [{"function": {"input": nested}}]}}]}
        ),
    ):
        with suppress(exceptions.LLMPoolError):
            call()


@pytest.mark.parametrize("text", [{"type": "text"}, {"type": "text", "text": None}])
def test_a_text_block_without_text_is_empty(text: dict[str, Any]) -> None:
    assert parse("anthropic", {"content": [text, {"type": "text", "text": "x"}]}).text == "x"


@pytest.mark.parametrize(
    "found",
    [
        [1],
        "abc",
        {"content": 5},
        {"content": {"a": 1}},
        {"content": ["a"]},
        {"content": [{"text": 5}]},
        {"tool_calls": {"a": 1}},
        {"tool_calls": [None]},
        {"tool_calls": [{"index": [1]}]},
        {"tool_calls": [{"index": "a"}]},
        {"tool_calls": [{"index": 0, "function": "f"}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}, {"index": 0, "function": ["f"]}]},
    ],
)
def test_an_openai_delta_of_an_unexpected_shape_is_an_invalid_response(found: Any) -> None:
    with pytest.raises(exceptions.InvalidResponse) as caught:
        of_openai(found)
    assert (caught.value.partial, caught.value.request_id) == ("Hel", "req_1")


@pytest.mark.parametrize("found", [None, [], {}, {"content": None}, {"content": []}, {"tool_calls": None}])
def test_a_field_missing_from_an_openai_delta_is_read_as_empty(found: Any) -> None:
    assert of_openai(found).text == "Hel"


def test_content_in_parts_is_joined_in_a_stream_too() -> None:
    parts = [
        {"type": "text", "text": "l"},
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "o"},
    ]
    completion = of_openai({"content": parts}, {"content": "!"})
    assert completion.text == "Hello!"
    content = completion.raw["choices"][0]["message"]["content"]
    assert content == [{"type": "text", "text": "Hell"}, parts[1], {"type": "text", "text": "o!"}]


def test_an_index_may_be_a_string_of_digits() -> None:
    def call(index: Any, **function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": function}]}

    completion = of_openai(call("0", name="f", arguments="{"), call(0, arguments="}"))
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("f", "{}")]


WRONG = [5, True, ["a"], {"a": 1}, 0.5]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_field_of_the_wrong_type_is_read_from_a_whole_answer_as_if_it_were_not_there(wrong: Any) -> None:
    message = {"content": "x", "audio": "a", "tool_calls": [{"id": "t", "function": {"name": wrong}}]}
    choice = {"message": message, "finish_reason": wrong}
    found = parse("openai", {"model": wrong, "choices": [choice]})
    assert (found.model, found.finish_reason, found.audio) == (None, None, None)
    assert found.tool_calls == (ToolCall("t", "", "{}"),)
    tool = {"type": "tool_use", "id": wrong, "name": wrong, "input": {}}
    found = parse("anthropic", {"model": wrong, "stop_reason": wrong, "content": [tool]})
    assert (found.model, found.finish_reason, found.choices[0].finish_reason) == (None, None, None)
    assert found.tool_calls == (ToolCall("", "", "{}"),)
    item = {"type": "function_call", "id": wrong, "call_id": wrong, "name": wrong, "arguments": "{}"}
    found = parse("openai-responses", {"model": wrong, "status": wrong, "output": [item]})
    assert (found.model, found.finish_reason) == (None, None)
    assert found.tool_calls == (ToolCall("", "", "{}"),)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_field_of_the_wrong_type_is_read_from_a_stream_as_if_it_were_not_there(wrong: Any) -> None:
    call = {"index": 0, "id": "t", "function": {"name": wrong, "arguments": "{}"}}
    chunks, found = read(
        "openai", {"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": wrong}]}, "[DONE]"
    )
    assert (chunks[0].finish_reason, found.finish_reason) == (None, None)
    assert chunks[0].tool_calls[0].name == found.tool_calls[0].name == ""
    message = {"type": "message_start", "message": {"model": wrong}}
    tool = start(0, {"type": "tool_use", "id": wrong, "name": wrong})
    last = {"type": "message_delta", "delta": {"stop_reason": wrong}}
    chunks, found = read("anthropic", message, tool, last, {"type": "message_stop"})
    assert (found.model, found.finish_reason, chunks[2].finish_reason) == (None, None, None)
    assert chunks[1].tool_calls == [ToolCallPart(0)]
    chunks, found = read("anthropic", {"type": "message", "content": [], "stop_reason": wrong})
    assert (found.finish_reason, chunks[0].finish_reason) == (None, None)


@pytest.mark.parametrize(
    ("provider", "event"),
    [
        ("openai", {"choices": [{"delta": {"content": "x"}, "finish_reason": 5}]}),
        ("anthropic", {"type": "message_delta", "delta": {"stop_reason": 5}}),
    ],
)
def test_a_reason_of_the_wrong_type_does_not_complete_an_answer(provider: str, event: Any) -> None:
    with pytest.raises(exceptions.StreamInterrupted):
        read(provider, event)


def test_halves_of_characters_in_the_words_of_a_refusal_are_repaired() -> None:
    details = {"type": "refusal", "explanation": "\ud83d"}
    refused = parse("anthropic", {"content": [], "stop_reason": "refusal", "stop_details": details})
    assert refused.refusal == "\ufffd"
