from __future__ import annotations

import json
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.providers.results import Chunk, Completion, ToolCall

anthropic = PROVIDERS["anthropic"]()
OK = Head(200, {"request-id": "req_1", "content-type": "application/json"})
SSE = Head(200, {"request-id": "req_1", "content-type": "text/event-stream"})

ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hi 😀"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
START = {"type": "message_start", "message": {**ANSWER, "content": [], "stop_reason": None}}
STOP = {"type": "message_stop"}


def sse(*events: dict[str, Any]) -> bytes:
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return "".join(lines).encode()


def block(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}


def delta(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def ending(reason: str, tokens: int = 2) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": tokens}}


def read(body: bytes, size: int | None = None) -> tuple[list[Chunk], Completion]:
    reader = anthropic.stream_reader(SSE)
    step = size or len(body)
    chunks = [chunk for at in range(0, len(body), step) for chunk in reader.feed(body[at : at + step])]
    chunks += reader.end()
    return chunks, reader.completion()


def test_parameters_go_into_the_body_unchanged() -> None:
    path, body = anthropic.completion_request(
        "Hi", "claude-x", {"max_tokens": 9, "system": "Be brief."}, stream=True
    )
    assert path == "/v1/messages"
    assert body == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "system": "Be brief.",
        "stream": True,
    }


def test_a_call_without_max_tokens_is_refused_before_it_is_sent() -> None:
    with pytest.raises(exceptions.InvalidParameter, match="max_tokens is missing"):
        anthropic.completion_request("Hi", "claude-x", {}, stream=False)


def test_the_key_goes_into_its_own_header() -> None:
    assert anthropic.headers("sk-ant")["x-api-key"] == "sk-ant"
    assert "x-api-key" not in anthropic.headers(None)
    assert anthropic.headers(None)["anthropic-version"] == "2023-06-01"


def test_a_message_is_read() -> None:
    completion = anthropic.parse_completion(OK, json.dumps(ANSWER).encode())
    assert (completion.text, completion.model, completion.finish_reason) == ("Hi 😀", "claude-x", "end_turn")
    assert completion.usage is not None
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 2)
    assert completion.request_id == "req_1"


def test_tool_calls_are_read() -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Zürich"}}
    completion = anthropic.parse_completion(OK, json.dumps({**ANSWER, "content": [tool]}).encode())
    assert completion.text == ""
    assert completion.tool_calls == (ToolCall("t1", "weather", '{"city": "Zürich"}'),)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"content": 1}', b'{"content": [{}]}'])
def test_a_body_that_is_not_a_message_is_an_invalid_response(body: bytes) -> None:
    with pytest.raises(exceptions.InvalidResponse, match="req_1"):
        anthropic.parse_completion(OK, body)


def test_status_529_is_the_error_overloaded() -> None:
    body = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
    error = anthropic.error_from_response(Head(529, {"request-id": "req_9"}), body)
    assert isinstance(error, exceptions.Overloaded)
    assert (error.type, error.request_id) == ("overloaded_error", "req_9")


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_stream_gives_the_same_message_in_pieces_of_any_size(size: int | None) -> None:
    body = sse(
        START,
        block(0, "thinking", thinking=""),
        delta(0, "thinking_delta", thinking="Hm."),
        delta(0, "signature_delta", signature="sig"),
        block(1, "text", text=""),
        {"type": "ping"},
        delta(1, "text_delta", text="Hi "),
        delta(1, "text_delta", text="😀"),
        block(2, "tool_use", id="t1", name="weather", input={}),
        delta(2, "input_json_delta", partial_json='{"city": '),
        delta(2, "input_json_delta", partial_json='"Zürich"}'),
        ending("tool_use", 7),
        STOP,
    )
    chunks, completion = read(body, size)
    assert "".join(map(str, chunks)) == completion.text == "Hi 😀"
    assert completion.tool_calls == (ToolCall("t1", "weather", '{"city": "Zürich"}'),)
    assert completion.finish_reason == "tool_use"
    assert completion.usage is not None
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 7)
    assert completion.raw["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "sig"}


def test_arguments_that_were_cut_off_stay_as_the_model_wrote_them() -> None:
    body = sse(
        START,
        block(0, "tool_use", id="t1", name="weather", input={}),
        delta(0, "input_json_delta", partial_json='{"city": "Zü'),
        ending("max_tokens"),
        STOP,
    )
    assert read(body)[1].tool_calls[0].arguments == '{"city": "Zü'


def test_a_stream_cut_short_is_interrupted_with_its_partial_text() -> None:
    body = sse(START, block(0, "text", text=""), delta(0, "text_delta", text="Hel"))
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        read(body)
    assert caught.value.partial == "Hel"


def test_an_error_event_ends_the_stream_with_its_error() -> None:
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    body = sse(START, block(0, "text", text=""), delta(0, "text_delta", text="Hel"), failure)
    with pytest.raises(exceptions.APIError, match="Overloaded") as caught:
        read(body)
    assert caught.value.partial == "Hel"


def test_an_event_of_an_unknown_type_becomes_a_chunk() -> None:
    new = {"type": "brand_new", "x": 1}
    chunks, completion = read(sse(START, new, block(0, "text", text="Hi"), ending("end_turn"), STOP))
    assert chunks[1].raw == new
    assert completion.text == "Hi"
