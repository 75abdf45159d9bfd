"""When a stream is complete, when it was cut, and what does not matter to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import StreamReader
from llm_pool.providers.head import Head
from llm_pool.providers.results import Chunk
from tests.providers.openai_stream import SSE, delta, openai, read, sse
from tests.providers.responses_events import events_of, frames, message, response

MESSAGE: dict[str, Any] = {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 3}}


def named(*events: Any) -> bytes:
    """Anthropic's events; bytes are sent as they stand."""
    return b"".join(
        event
        if isinstance(event, bytes)
        else f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for event in events
    )


START = {"type": "message_start", "message": MESSAGE}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
HELLO = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}
ANTHROPIC = named(START, BLOCK, HELLO)


def fed(provider: str, body: bytes) -> tuple[StreamReader, list[Chunk]]:
    reader = PROVIDERS[provider]().stream_reader(Head(200, {}))
    return reader, reader.feed(body)


# Complete, though something is missing.


@pytest.mark.parametrize("last", [b"data:  [DONE]\n\n", b"data: [DONE] \n\n", b"data:[DONE]\r\n\r\n"])
def test_blanks_around_done_do_not_matter(last: bytes) -> None:
    reader, _ = fed("openai", sse(delta("Hello"), done=False) + last)
    assert reader.finished
    assert reader.completion().text == "Hello"


@pytest.mark.parametrize(
    ("provider", "begin", "end"),
    [
        ("openai", sse(delta("Hello"), done=False), sse(delta(reason="length"), done=False)),
        ("anthropic", ANTHROPIC, named(END)),
    ],
)
def test_a_stream_is_complete_once_the_reason_of_its_end_has_come(
    provider: str, begin: bytes, end: bytes
) -> None:
    reader, _ = fed(provider, begin)
    assert not reader.is_complete
    with pytest.raises(exceptions.StreamInterrupted):
        reader.end()
    reader, _ = fed(provider, begin + end)
    assert reader.is_complete
    assert not reader.finished
    assert reader.end() == []
    assert reader.completion().text == "Hello"


def test_each_choice_that_was_asked_for_must_have_ended() -> None:
    reader = openai.stream_reader(SSE._replace(choices=2))
    first = {"index": 0, "delta": {"content": "A"}, "finish_reason": "stop"}
    reader.feed(sse({"choices": [first]}, done=False))
    assert not reader.is_complete
    reader.feed(sse({"choices": [{**first, "index": 1}]}, done=False))
    assert reader.is_complete


@pytest.mark.parametrize("between", [b"", named(END), b"data: [DONE]\n\n"])
def test_message_stop_is_the_end_with_or_without_its_event_line(between: bytes) -> None:
    stop = b'data: {"type": "message_stop"}\n\n'
    reader, _ = fed("anthropic", ANTHROPIC + between + stop + b"data: [DONE]\n\ndata: nonsense\n\n")
    assert reader.finished
    assert reader.completion().text == "Hello"


def test_done_on_an_incomplete_stream_of_anthropic_completes_nothing() -> None:
    reader, _ = fed("anthropic", ANTHROPIC + b"data: [DONE]\n\n")
    assert not reader.finished
    with pytest.raises(exceptions.StreamInterrupted):
        reader.end()


def test_what_follows_the_end_of_an_answer_is_still_read() -> None:
    """The tool calls of a turn can follow in another choice, and the usage follows in most streams."""
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    _, completion = read(sse(delta("Hello"), delta(reason="stop"), delta("!"), usage))
    assert completion.text == "Hello!"
    assert completion.usage is not None


# Keep-alives.

KEEP_ALIVES = [
    b"data:\n\n",
    b"data: \n\n",
    b": ping\n\n",
    b"retry: 3000\n\n",
    b"id: 7\n\n",
    b"event: ping\n\n",
    b"event: ping\ndata:\n\n",
    b"event: ping\ndata: {}\n\n",
    b"event: keepalive\ndata: {}\n\n",
    b'data: {"type": "keepalive", "sequence_number": 3}\n\n',
    b'event: ping\ndata: {"type": "ping", "time": 3}\n\n',
    b'data: {"id": "c1", "choices": null}\n\n',
    b'data: {"usage": null}\n\n',
    b"{ not JSON\n\n",
]


@pytest.mark.parametrize("keep_alive", KEEP_ALIVES)
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize("step", [1, 9999])
def test_a_keep_alive_of_any_shape_adds_nothing(keep_alive: bytes, provider: str, step: int) -> None:
    events = {
        "openai": [sse(delta("Hel"), done=False), sse(delta("lo"), done=False), sse(delta(reason="stop"))],
        "openai-responses": [frames(event) for event in events_of(response(message("Hello")))],
        "anthropic": [named(START), named(BLOCK), named(HELLO), named(END), named(STOP)],
    }[provider]
    body = keep_alive + keep_alive.join(events)
    reader, chunks = fed(provider, b"")
    for start in range(0, len(body), step):
        chunks += reader.feed(body[start : start + step])
    assert reader.finished
    assert reader.completion().text == "".join(map(str, chunks)) == "Hello"


@pytest.mark.parametrize("split", [b"\n: keep-alive\n\n", b"\n:\n"])
def test_a_comment_in_the_middle_of_an_event_does_not_matter(split: bytes) -> None:
    body = named(START, BLOCK, HELLO, END, STOP).replace(b"\ndata:", split + b"data:")
    reader, _ = fed("anthropic", body)
    assert reader.completion().text == "Hello"


# Messages in the place of deltas.


@pytest.mark.parametrize(
    "messages",
    [["Hel", "lo", "o"], ["Hel", "Hello", "Helloo"], ["Helloo"], ["Hel", "Hello", "Helloo", "Helloo"]],
    ids=["pieces", "cumulative", "whole", "told again"],
)
def test_a_message_in_the_place_of_a_delta_is_read(messages: list[str]) -> None:
    events = [{"choices": [{"index": 0, "message": {"content": text}}]} for text in messages]
    events[-1]["choices"][0]["finish_reason"] = "stop"  # type: ignore[assignment]
    chunks, completion = read(sse(*events))
    assert completion.text == "".join(map(str, chunks)) == "Helloo"
    assert completion.raw["choices"][0]["message"]["content"] == "Helloo"


def test_a_text_in_the_place_of_a_delta_is_read() -> None:
    """As in the completions before chat, with which some servers answer."""
    events = [{"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in ("Hel", "lo")]
    chunks, completion = read(sse(*events, {"choices": [{"index": 0, "text": "!", "finish_reason": "stop"}]}))
    assert [str(chunk) for chunk in chunks] == ["Hel", "lo", "!"]
    [choice] = completion.raw["choices"]
    message = {"role": "assistant", "content": "Hello!"}
    assert choice == {"index": 0, "message": message, "finish_reason": "stop"}


def test_a_text_beside_a_delta_is_not_a_part_of_the_answer() -> None:
    beside = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "text": "x", "finish_reason": "stop"}]}
    completion = read(sse(beside))[1]
    assert (completion.text, completion.raw["choices"][0]["text"]) == ("Hello", "x")


def test_a_message_that_begins_as_the_text_so_far_is_a_piece() -> None:
    events = [{"choices": [{"index": 0, "message": {"content": text}}]} for text in ("Hel", "lo ", "Help")]
    assert read(sse(*events, delta(reason="stop")))[1].text == "Hello Help"


def test_a_message_beside_the_deltas_adds_nothing() -> None:
    """Perplexity sends the whole message so far beside each delta."""
    pieces = [("One ", "One "), ("two", "One two"), ("", "One two")]
    events = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "message": {"content": so_far}}]}
        for piece, so_far in pieces
    ]
    _, completion = read(sse(*events, delta(reason="stop")))
    assert completion.text == "One two"
    assert completion.raw["choices"][0]["message"] == {"role": "assistant", "content": "One two"}


def test_a_message_after_the_deltas_tells_the_same_again() -> None:
    last = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert read(sse(delta("Hel"), delta("lo"), last))[1].text == "Hello"


# Answers in another form than was asked for.


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", [b"", b"\n \r\n\n"])
def test_json_in_the_place_of_a_stream_is_read(indent: int | None, before: bytes) -> None:
    tool = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = {
        "id": "c1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello", "tool_calls": [tool]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    body = before + json.dumps(whole, indent=indent).encode()
    chunks, completion = read(body, size=7)
    assert "".join(map(str, chunks)) == completion.text == "Hello"
    assert completion == openai.parse_completion(SSE, body)
    blocks = [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
    ]
    whole = {**MESSAGE, "type": "message", "content": blocks, "stop_reason": "tool_use"}
    reader, _ = fed("anthropic", before + json.dumps(whole, indent=indent).encode())
    chunks = reader.end()
    assert "".join(map(str, chunks)) == reader.completion().text == "Hello"
    assert reader.completion().raw == whole
    assert [part.arguments for chunk in chunks for part in chunk.tool_calls] == ['{"x": 1}']


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", sse(delta("Hello"), delta(reason="stop"))),
        ("anthropic", named(START, BLOCK, HELLO, END, STOP)),
    ],
)
def test_a_stream_in_the_place_of_json_is_read(provider: str, body: bytes) -> None:
    api = PROVIDERS[provider]()
    assert api.parse_completion(SSE, body).text == "Hello"
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        api.parse_completion(SSE, body[: body.index(b"Hello") + 20])
    assert caught.value.partial in {"", "Hello"}
    with pytest.raises(exceptions.Overloaded):
        api.parse_completion(SSE, b'event: error\ndata: {"error": {"type": "overloaded_error"}}\n\n')


@pytest.mark.parametrize("reason", ["content_filter", "stop"])
def test_a_choice_without_a_message_is_an_answer_without_text(reason: str) -> None:
    """Azure's answer if its filter stopped the model before the first word."""
    body = {"choices": [{"index": 0, "finish_reason": reason, "content_filter_results": {}}]}
    completion = openai.parse_completion(SSE, json.dumps(body).encode())
    assert (completion.text, completion.finish_reason) == ("", reason)
    with pytest.raises(exceptions.InvalidResponse):
        openai.parse_completion(SSE, b'{"choices": [{"index": 0}]}')


# Two answers in one stream.


def test_a_second_answer_in_the_middle_of_the_first_is_an_error() -> None:
    first = [delta("One ", role="assistant"), delta("two ")]
    second = [{**delta("Eins ", role="assistant"), "id": "c2"}, {**delta("zwei"), "id": "c2"}]
    with pytest.raises(exceptions.InvalidResponse, match="a second answer") as caught:
        read(sse(*first, *second))
    assert caught.value.partial == "One two "
    assert read(sse(*first, delta(reason="stop"), *second))[1].text == "One two "
    with pytest.raises(exceptions.InvalidResponse, match="a second answer") as caught:
        fed("anthropic", ANTHROPIC + named(START, BLOCK, HELLO))[0].completion()
    assert caught.value.partial == "Hello"


def test_an_id_of_its_own_for_each_event_is_not_a_second_answer() -> None:
    events = [{**delta(str(number), role="assistant"), "id": f"c{number}"} for number in range(3)]
    assert read(sse(*events))[1].text == "012"


def test_an_empty_id_is_not_a_second_answer() -> None:
    events = [delta("a", role="assistant"), delta("b"), {**delta("c", role="assistant"), "id": ""}]
    assert read(sse(*events))[1].text == "abc"


def test_message_start_twice_before_the_first_block_is_one_answer() -> None:
    assert fed("anthropic", named(START, START, BLOCK, HELLO, END, STOP))[0].completion().text == "Hello"
