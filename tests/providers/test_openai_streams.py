from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers.results import Timing, ToolCall, ToolCallPart
from llm_pool.providers.usage import Usage
from tests.providers.openai_stream import SSE, delta, openai, read, sse

STORY = sse(
    delta("", role="assistant"),
    delta("Once "),
    delta("upon 😀\u2028"),
    delta(" a time"),
    delta(reason="stop"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}},
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, None])
def test_a_stream_is_read_in_pieces_of_any_size(size: int | None) -> None:
    chunks, completion = read(STORY, size=size)
    assert "".join(map(str, chunks)) == completion.text == "Once upon 😀\u2028 a time"
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, None, "stop", None]
    assert chunks[1].raw["choices"][0]["delta"]["content"] == "Once "
    assert (completion.model, completion.finish_reason, completion.request_id) == ("m1", "stop", "req_1")
    assert completion.usage == Usage(7, 4)
    assert completion.raw["choices"][0]["message"] == {"role": "assistant", "content": completion.text}
    assert completion.raw["id"] == "c1"


def test_the_reader_is_finished_at_done_and_ignores_the_rest() -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta("a", reason="stop"), done=False))
    assert not reader.finished
    assert reader.feed(b"data: [DONE]\n\ndata: nonsense\n\n") == []
    assert reader.finished
    assert reader.feed(b"data: nonsense\n\n") == []
    assert reader.end() == []
    assert reader.completion(Timing(total=2.0)).timing == Timing(total=2.0)


@pytest.mark.parametrize(("before", "after"), [(b"  ", b""), (b"", b" \t"), (b"  ", b" \t")])
def test_blanks_around_the_json_of_an_event_mean_nothing(before: bytes, after: bytes) -> None:
    stream = sse(delta("a"), delta(reason="stop"))
    stream = stream.replace(b"data: ", b"data: " + before).replace(b"\n\n", after + b"\n\n")
    assert read(stream)[1].text == "a"


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"])
def test_a_stream_without_its_last_blank_line_is_complete(end: bytes) -> None:
    assert read(sse(delta("a"), done=False) + end)[1].text == "a"


def test_a_stream_without_done_is_complete_after_a_finish_reason() -> None:
    chunks, completion = read(sse(delta("a"), delta("b", reason="length"), done=False)[:-2])
    assert completion.text == "ab"
    assert completion.finish_reason == "length"
    assert len(chunks) == 2


@pytest.mark.parametrize("rest", [b"", b"data: {", b'data: {"choices": [{"del', b": ping\n\n", b"data: {}\n"])
def test_a_stream_that_ends_early_is_interrupted_and_keeps_its_text(rest: bytes) -> None:
    with pytest.raises(exceptions.StreamInterrupted, match=r"\(request req_1\) was cut short") as caught:
        read(sse(delta("Once "), delta("upon"), done=False) + rest)
    assert caught.value.partial == "Once upon"
    assert caught.value.request_id == "req_1"


def test_a_stream_of_comments_only_is_interrupted() -> None:
    with pytest.raises(exceptions.StreamInterrupted):
        read(b": PROCESSING\n\n: PROCESSING\n\n")


def test_an_interruption_has_the_reason_and_the_partial_text() -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta("Once"), done=False))
    error = reader.interruption("the connection broke")
    assert "was cut short: the connection broke." in str(error)
    assert error.partial == reader.partial == "Once"


@pytest.mark.parametrize("size", [5, None])
def test_an_error_in_a_stream_is_raised_after_the_chunks_before_it(size: int | None) -> None:
    body = sse(delta("Once"), {"error": {"message": "Overloaded now", "code": 503}}, delta("never"))
    reader = openai.stream_reader(SSE)
    texts = []
    with pytest.raises(exceptions.APIError, match="broke off its answer with an error") as caught:  # noqa: PT012
        for start in range(0, len(body), size or len(body)):
            texts += [str(chunk) for chunk in reader.feed(body[start : start + (size or len(body))])]
        reader.end()
    assert texts == ["Once"]
    assert reader.finished
    assert caught.value.partial == "Once"
    assert caught.value.code == 503
    with pytest.raises(exceptions.APIError):
        reader.completion()
    with pytest.raises(exceptions.APIError):
        reader.feed(b"")


def test_an_event_of_type_error_is_an_error() -> None:
    with pytest.raises(exceptions.APIError, match="quota"):
        read(b'event: error\ndata: {"message": "quota", "code": "q"}\n\n')


@pytest.mark.parametrize(
    "bad", ["{", "{} {}", "nonsense", "5", "[]", '{"choices": 5}', '{"choices": [5]}', "[" * 99999]
)
def test_an_event_of_another_shape_is_an_invalid_response(bad: str) -> None:
    with pytest.raises(exceptions.InvalidResponse) as caught:
        read(sse(delta("Once"), bad))
    assert caught.value.partial == "Once"
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "an empty body"),
        (b"<!doctype html><title>Sign in</title>", "HTML that says 'Sign in'"),
        (b'{"answer": "x"}', "what is not an event stream"),
        (b"data: [DONE]\n\n", "a stream without choices"),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', "a stream without choices"),
    ],
)
def test_a_body_that_is_not_a_stream_is_an_invalid_response(body: bytes, expected: str) -> None:
    with pytest.raises(exceptions.InvalidResponse, match=expected):
        read(body)


def test_an_error_object_instead_of_a_stream_is_an_api_error() -> None:
    with pytest.raises(exceptions.APIError, match="no such model"):
        read(json.dumps({"error": {"message": "no such model"}}, indent=1).encode(), size=9)


def test_parts_of_tool_calls_are_merged() -> None:
    def part(**call: Any) -> dict[str, Any]:
        return delta(tool_calls=[call])

    chunks, completion = read(
        sse(
            part(index=0, id="a", type="function", function={"name": "f", "arguments": ""}),
            part(index=0, function={"arguments": '{"x"'}),
            part(index=1, id="b", function={"name": "g", "arguments": '{"y": 2}'}),
            part(index=0, function={"arguments": ": 1}"}),
            delta(reason="tool_calls"),
        )
    )
    assert completion.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", '{"y": 2}'))
    assert completion.finish_reason == "tool_calls"
    message = completion.raw["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0] == {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": '{"x": 1}'},
    }
    assert [part for chunk in chunks for part in chunk.tool_calls] == [
        ToolCallPart(0, "a", "f"),
        ToolCallPart(0, arguments='{"x"'),
        ToolCallPart(1, "b", "g", '{"y": 2}'),
        ToolCallPart(0, arguments=": 1}"),
    ]


def test_whole_tool_calls_without_an_index_are_not_merged() -> None:
    whole = [{"id": i, "function": {"name": i, "arguments": {"n": 1}}} for i in "ab"]
    _, completion = read(sse(delta(tool_calls=whole), delta(tool_calls=[{"custom": {"input": "z"}}])))
    assert [(call.id, call.name) for call in completion.tool_calls] == [("a", "a"), ("b", "b")]


def test_the_text_is_that_of_the_first_of_several_choices() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}]}
    chunks, completion = read(sse(delta("A"), second, delta(reason="stop")), SSE._replace(choices=2))
    assert completion.text == "A"
    assert [(chunk.text, [(each.index, each.text) for each in chunk.choices]) for chunk in chunks] == [
        ("A", [(0, "A")]),
        ("", [(1, "B")]),
        ("", [(0, "")]),
    ]
    assert [(choice.index, choice.text, choice.finish_reason) for choice in completion.choices] == [
        (0, "A", "stop"),
        (1, "B", "length"),
    ]


def test_of_one_choice_each_part_is_read_whatever_its_index() -> None:
    parts = [{"choices": [{"index": index, "delta": {"content": str(index)}}]} for index in (1, 2, 0, 3)]
    _, completion = read(sse(*parts, delta(reason="stop")))
    assert completion.text == "1203"
    assert len(completion.raw["choices"]) == 1


def test_a_character_split_over_two_events_is_joined() -> None:
    def half(code: str) -> str:
        return f'{{"choices":[{{"delta":{{"content":"{code}"}}}}]}}'

    chunks, completion = read(
        sse(half("a\\ud83d"), half("\\ude00b"), half("\\ud83d"), half("c"), half("\\ud83d"))
    )
    assert [str(chunk) for chunk in chunks] == ["a", "😀b", "", "\ufffdc", ""]
    assert completion.text == "a😀b\ufffdc"


def test_many_chunks_are_read_fast() -> None:
    event = sse(delta("word "), done=False)
    reader = openai.stream_reader(SSE)
    started = time.process_time()
    for _ in range(20_000):
        reader.feed(event)
    assert time.process_time() - started < 2  # usually a tenth of this
    assert len(reader.partial) == 100_000
