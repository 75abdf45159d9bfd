"""Tool calls as providers and gateways send them: each is found once, with the arguments that were sent."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llm_pool.providers.results import Completion, ToolCall
from tests.providers.openai_stream import SSE, delta, openai, read, sse

Part = dict[str, Any]
ROWS = {"rows": [{"index": 0, "a": 1}, {"index": 0, "b": 2}, {"index": 1}], "name": "x"}


def part(arguments: Any = None, name: str | None = None, **beside: Any) -> Part:
    function = {"name": name, "arguments": arguments}
    return {**beside, "function": {key: value for key, value in function.items() if value is not None}}


def stream(*events: list[Part] | Part) -> tuple[list[Any], Completion]:
    chunks, completion = read(sse(*(delta(tool_calls=event) for event in events), delta(reason="tool_calls")))
    return [each for chunk in chunks for each in chunk.tool_calls], completion


def test_an_id_that_is_a_number_stays_one_in_raw() -> None:
    completion = stream([part("", "f", index=0, id=7)], [part("{}", index=0, id=7)])[1]
    call = {"id": 7, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert completion.raw["choices"][0]["message"]["tool_calls"] == completion.message["tool_calls"] == [call]


def seen(calls: tuple[ToolCall, ...]) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in calls]


F, G = ("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')
STREAMS: dict[str, tuple[list[list[Part] | Part], list[tuple[str, str, str]]]] = {
    "as documented": (
        [
            [part("", "f", index=0, id="a", type="function")],
            [part('{"x"', index=0)],
            [part('{"y":2}', "g", index=1, id="b")],
            [part(":1}", index=0)],
        ],
        [F, G],
    ),
    "all at index 0": ([[part(F[2], "f", index=0, id="a")], [part(G[2], "g", index=0, id="b")]], [F, G]),
    "all at index 0, in pieces": (
        [
            [part("", "f", index=0, id="a")],
            [part('{"x"', index=0)],
            [part(":1}", index=0)],
            [part("", "g", index=0, id="b")],
            [part('{"y":2}', index=0)],
        ],
        [F, G],
    ),
    "at index 0 without ids": (
        [[part(F[2], "f", index=0)], [part(G[2], "g", index=0)], [part('{"y":3}', "g", index=0)]],
        [("", *F[1:]), ("", *G[1:]), ("", "g", '{"y":3}')],
    ),
    "without an index": ([[part(F[2], "f", id="a"), part(G[2], "g", id="b")]], [F, G]),
    "without an index, with the id in every part": (
        [[part('{"x"', "f", id="a")], [part(":1", id="a")], [part(G[2], "g", id="b")], [part("}", id="a")]],
        [F, G],
    ),
    "an index in the first part only": ([[part('{"x"', "f", index=7, id="a")], [part(":1}")]], [F]),
    "an index that counts the parts": (
        [[part('{"x"', "f", index=0, id="a")], [part(":1", index=1)], [part("}", index=2)]],
        [F],
    ),
    "an id of its own in each part": (
        [[part("", "f", index=0, id="a")], [part('{"x"', index=0, id="q")], [part(":1}", index=0, id="r")]],
        [F],
    ),
    "an id after the beginning": ([[part("", "f", index=0)], [part(F[2], index=0, id="a")]], [F]),
    "ids that are numbers": ([[part(F[2], "f", index=0, id=0)]], [("0", "f", F[2])]),
    "without ids": ([[part(F[2], "f", index=0), part(G[2], "g", index=1)]], [("", *F[1:]), ("", *G[1:])]),
    "with empty ids": ([[part(F[2], "f", id=""), part(F[2], "f", id="")]], [("", *F[1:]), ("", *F[1:])]),
    "one id for two calls": (
        [[part(F[2], "f", index=0, id="a")], [part(G[2], "g", index=1, id="a")]],
        [F, ("a", *G[1:])],
    ),
    "the name in every part": (
        [[part('{"x"', "f", index=0, id="a")], [part(":1}", "f", index=0)], [part("", "f", index=0, id="a")]],
        [F],
    ),
    "told twice": ([[part(F[2], "f", index=0, id="a")], [part(F[2], "f", index=0, id="a")]], [F]),
    "told twice, at another index": (
        [[part(F[2], "f", index=0, id="a")], [part(F[2], "f", index=1, id="a")]],
        [F],
    ),
    "told again after the pieces": (
        [[part('{"x"', "f", index=0, id="a")], [part(":1}", index=0)], [part(F[2], "f", index=0, id="a")]],
        [F],
    ),
    "an object in place of the list": ([part('{"x"', "f", index=0, id="a"), part(":1}", index=0)], [F]),
    "arguments as an object": (
        [[part(ROWS, "f", index=0, id="a")]],
        [("a", "f", json.dumps(ROWS))],
    ),
    "arguments that begin with {}": (
        [[part("{}", "f", index=0, id="a")], [part('{"x"', index=0)], [part(":1}", index=0)]],
        [F],
    ),
    "arguments {} and then the whole": (
        [[part("{}", "f", index=0, id="a")], [part(F[2], "f", index=0, id="a")]],
        [F],
    ),
    "a nested object with the same key": (
        [[part('{"a":', "f", index=0, id="a")], [part('{"a":1}', index=0, id="a")], [part("}", index=0)]],
        [("a", "f", '{"a":{"a":1}}')],
    ),
    "without arguments": ([[part(None, "f", index=0, id="a")]], [("a", "f", "{}")]),
    "with empty arguments": ([[part("", "f", index=0, id="a")]], [("a", "f", "{}")]),
    "cut by max_tokens": ([[part('{"x', "f", index=0, id="a")]], [("a", "f", '{"x')]),
    "without the level of the function": (
        [[{"index": 0, "id": "a", "name": "f", "arguments": '{"x"'}], [{"index": 0, "arguments": ":1}"}]],
        [F],
    ),
    "a custom tool": (
        [
            [{"index": 0, "id": "a", "custom": {"name": "f", "input": "free "}}],
            [{"index": 0, "custom": {"input": "text"}}],
        ],
        [("a", "f", "free text")],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_each_tool_call_of_a_stream_is_found_once(name: str) -> None:
    events, expected = STREAMS[name]
    parts, completion = stream(*events)
    assert seen(completion.tool_calls) == expected
    for number, (identifier, function, arguments) in enumerate(expected):
        mine = [each for each in parts if each.index == number]
        assert "".join(each.id for each in mine) == identifier
        assert "".join(each.name for each in mine) == function
        assert ("".join(each.arguments for each in mine) or "{}") == arguments


@pytest.mark.parametrize("name", STREAMS)
def test_the_merged_tool_calls_can_be_read_and_sent_again(name: str) -> None:
    """What is in ``raw`` after a stream is read like an answer without a stream."""
    _, completion = stream(*STREAMS[name][0])
    again = openai.parse_completion(SSE, json.dumps(completion.raw).encode())
    assert again.tool_calls == completion.tool_calls
    assert again.message == completion.message
    assert [call.raw for call in again.tool_calls] == [call.raw for call in completion.tool_calls]


WHOLE: dict[str, tuple[Any, list[tuple[str, str, str]]]] = {
    "a list": ([part(F[2], "f", id="a"), part(G[2], "g", id="b")], [F, G]),
    "one object": (part(F[2], "f", id="a"), [F]),
    "told twice": ([part(F[2], "f", id="a"), part(F[2], "f", id="a")], [F]),
    "one id for two calls": ([part(F[2], "f", id="a"), part(G[2], "g", id="a")], [F, ("a", *G[1:])]),
    "two equal calls without ids": ([part(F[2], "f"), part(F[2], "f")], [("", *F[1:])] * 2),
    "arguments as an object": ([part(ROWS, "f", id="a")], [("a", "f", json.dumps(ROWS))]),
    "without arguments": ([part(None, "f", id="a")], [("a", "f", "{}")]),
    "with empty arguments": ([part("", "f", id="a")], [("a", "f", "{}")]),
    "cut by max_tokens": ([part('{"x', "f", id="a")], [("a", "f", '{"x')]),
    "without the level of the function": ([{"id": "a", "name": "f", "arguments": F[2]}], [F]),
    "a custom tool": ([{"id": "a", "custom": {"name": "f", "input": ""}}], [("a", "f", "")]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_tool_calls_of_a_whole_answer_are_found(name: str) -> None:
    calls, expected = WHOLE[name]
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    completion = openai.parse_completion(SSE, json.dumps(body).encode())
    assert seen(completion.tool_calls) == expected


@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_call_of_the_old_api_is_a_tool_call(streamed: bool) -> None:
    call = {"name": "f", "arguments": '{"x":1}'}
    if streamed:
        pieces = [{"name": "f", "arguments": '{"x"'}, {"arguments": ":1}"}]
        chunks, completion = read(
            sse(*(delta(function_call=piece) for piece in pieces), delta(reason="function_call"))
        )
        assert [each.name for chunk in chunks for each in chunk.tool_calls] == ["f", ""]
    else:
        body = {"choices": [{"message": {"content": None, "function_call": call}}]}
        completion = openai.parse_completion(SSE, json.dumps(body).encode())
    assert seen(completion.tool_calls) == [("", "f", '{"x":1}')]
    assert completion.raw["choices"][0]["message"]["function_call"] == call
    assert "tool_calls" not in completion.message


@pytest.mark.parametrize("streamed", [False, True])
def test_text_and_tool_calls_in_choices_of_their_own_are_one_turn(streamed: bool) -> None:
    call = part(F[2], "f", id="a", type="function")
    text, tools = {"content": "Let me look."}, {"content": None, "tool_calls": [call]}
    if streamed:
        events = [
            {"choices": [{"index": 0, "delta": text, "finish_reason": "stop"}]},
            {"choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0, **call}]}}]},
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "tool_calls"}]},
        ]
        completion = read(sse(*events))[1]
    else:
        choices = [
            {"index": 0, "message": text, "finish_reason": "stop"},
            {"index": 1, "message": tools, "finish_reason": "tool_calls"},
        ]
        completion = openai.parse_completion(SSE, json.dumps({"choices": choices}).encode())
    assert (completion.text, completion.finish_reason) == ("Let me look.", "tool_calls")
    assert seen(completion.tool_calls) == [F]
    assert completion.message == {"role": "assistant", **text, "tool_calls": [call]}
    assert len(completion.choices) == 1


def test_ten_thousand_parts_of_a_tool_call_are_read_in_linear_time() -> None:
    pieces = ['{"text": "', *["0123456789" * 100] * 10_000, '"}']
    events = [delta(tool_calls=[part(piece, index=0, id="a")]) for piece in pieces]
    started = time.process_time()
    _, completion = read(sse(delta(tool_calls=[part("", "f", index=0, id="a")]), *events))
    assert time.process_time() - started < 5  # usually a fifth of this
    assert completion.tool_calls[0].arguments == "".join(pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_a_call_whose_name_is_in_each_part_ends_where_its_object_ends(size: int) -> None:
    """Braces and quotes in strings end nothing, wherever the parts are cut."""
    values: list[Any] = [{"a": '}{\\"}', "}": {"b": [{}, "{"]}, "c": "\\"}, {"d": '"'}, {"x": {}}]
    calls = [json.dumps(value) for value in values]
    parts = [[part(text[at : at + size], "f", index=0)] for text in calls for at in range(0, len(text), size)]
    assert seen(stream(*parts)[1].tool_calls) == [("", "f", arguments) for arguments in calls]


def test_a_call_that_is_told_again_in_parts_ends_where_its_object_ends() -> None:
    whole, again = [part('{"x": 1}', "f", index=0)], [[part(text, index=0)] for text in ('{"x"', ": 1", "}")]
    calls = stream(whole, *again, [part('{"x": 2}', "f", index=0)])[1].tool_calls
    assert seen(calls) == [("", "f", '{"x": 1}'), ("", "f", '{"x": 2}')]
