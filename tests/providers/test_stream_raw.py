"""A stream's ``raw`` has the shape of a response without a stream, with every field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.providers.results import Chunk, Completion


def read(provider: str, *events: Any) -> tuple[list[Chunk], Completion]:
    reader = PROVIDERS[provider]().stream_reader(Head(200, {}))
    lines = [f"event: {event.get('type', 'message')}\ndata: {json.dumps(event)}\n\n" for event in events]
    chunks = reader.feed("".join(lines).encode())
    if provider == "openai":
        chunks += reader.feed(b"data: [DONE]\n\n")
    return chunks, reader.completion()


def choice(index: int = 0, **more: Any) -> dict[str, Any]:
    delta = {
        name: more.pop(name) for name in list(more) if name not in ("finish_reason", "logprobs", "filter")
    }
    return {"index": index, "delta": delta, "finish_reason": None, **more}


def of_openai(*choices: dict[str, Any], **beside: Any) -> dict[str, Any]:
    raw = read("openai", *({"id": "c", "choices": [choice], **beside} for choice in choices))[1].raw
    assert len(raw["choices"]) == 1
    return raw["choices"][0]


@pytest.mark.parametrize("name", ["refusal", "reasoning_content", "reasoning", "brand_new"])
def test_a_field_of_the_deltas_is_kept(name: str) -> None:
    found = of_openai(
        choice(role="assistant", **{name: "I "}), choice(content="x", **{name: "see"}), choice()
    )
    assert found["message"] == {"role": "assistant", "content": "x", name: "I see"}


def test_a_function_call_of_the_old_api_is_kept() -> None:
    calls = [{"name": "f", "arguments": ""}, {"arguments": '{"x"'}, {"name": "f", "arguments": ": 1}"}]
    found = of_openai(*(choice(function_call=call) for call in calls), choice(finish_reason="function_call"))
    assert found["message"]["function_call"] == {"name": "f", "arguments": '{"x": 1}'}
    assert found["message"]["content"] is None


def test_fields_beside_the_delta_are_kept() -> None:
    tokens = [{"token": "a", "logprob": -1.0, "top_logprobs": []}, {"token": "b", "logprob": -2.0}]
    found = of_openai(
        choice(content="a", logprobs={"content": tokens[:1], "refusal": None}, filter={"hate": "safe"}),
        choice(content="b", logprobs={"content": tokens[1:]}, filter={"hate": "safe"}),
        choice(finish_reason="stop", logprobs=None),
    )
    assert found == {
        "index": 0,
        "message": {"role": "assistant", "content": "ab"},
        "logprobs": {"content": tokens, "refusal": None},
        "filter": {"hate": "safe"},
        "finish_reason": "stop",
    }


def test_a_field_beside_the_delta_that_is_always_null_stays_null() -> None:
    found = of_openai(choice(content="a", logprobs=None), choice(finish_reason="stop", logprobs=None))
    assert found["logprobs"] is None
    assert found["finish_reason"] == "stop"


def test_the_characters_that_hide_the_size_of_an_event_are_no_part_of_the_answer() -> None:
    event = {"id": "c", "choices": [choice(content="x", finish_reason="stop")], "obfuscation": "kQ9"}
    chunks, completion = read("openai", event, event | {"choices": []})
    assert "obfuscation" not in completion.raw
    assert chunks[0].raw == event


def test_of_the_fields_beside_the_choices_the_last_values_are_kept() -> None:
    raw = read(
        "openai",
        {"id": "", "model": "", "choices": [], "prompt_filter_results": [1]},
        {"id": "c", "model": "m", "choices": [choice(content="x")], "usage": None},
        {"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 1}, "timings": {"ms": 2}},
        {"id": "c", "model": "m", "choices": [choice(finish_reason="stop")], "usage": None},
    )[1].raw
    del raw["choices"]
    assert raw == {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "prompt_filter_results": [1],
        "usage": {"prompt_tokens": 1},
        "timings": {"ms": 2},
    }


def test_parts_of_tool_calls_keep_their_unknown_fields() -> None:
    found = of_openai(
        choice(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"name": "g"}}]),
        choice(
            tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}, "new": {"x": 1}}]
        ),
        choice(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}}]),
    )
    assert found["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "new": {"x": 1}},
        {"id": "b", "type": "function", "function": {"name": "g"}},
    ]


def test_all_choices_are_kept_and_the_text_is_that_of_the_first() -> None:
    chunks, completion = read(
        "openai",
        {"choices": [choice(1, content="B"), choice(0, content="A")]},
        {"choices": [choice(1, content="b", finish_reason="length")]},
        {"choices": [choice(0, content="a"), choice(1)]},
        {"choices": [choice(0, finish_reason="stop")]},
    )
    assert [str(chunk) for chunk in chunks] == ["A", "", "a", ""]
    assert (completion.text, completion.finish_reason) == ("Aa", "stop")
    assert completion.raw["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Aa"}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "Bb"}, "finish_reason": "length"},
    ]


def test_a_stream_is_interrupted_if_a_choice_has_no_finish_reason() -> None:
    reader = PROVIDERS["openai"]().stream_reader(Head(200, {}))
    event = {"choices": [choice(0, content="A", finish_reason="stop"), choice(1, content="B")]}
    reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    with pytest.raises(exceptions.StreamInterrupted):
        reader.end()


def test_a_stream_without_the_first_of_several_choices_is_an_invalid_response() -> None:
    reader = PROVIDERS["openai"]().stream_reader(Head(200, {}, choices=2))
    event = {"choices": [choice(1, content="B")]}
    reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    with pytest.raises(exceptions.InvalidResponse, match="without its first choice"):
        reader.feed(b"data: [DONE]\n\n")


def test_chunks_keep_the_events_unchanged() -> None:
    events = [
        {"choices": [choice(tool_calls=[{"id": name, "function": {"name": name, "arguments": "{"}}])]}
        for name in "ab"
    ]
    chunks, completion = read("openai", *events)
    assert [chunk.raw for chunk in chunks] == events
    assert len(completion.tool_calls) == 2


def of_anthropic(block: dict[str, Any], *deltas: dict[str, Any], **last: Any) -> dict[str, Any]:
    events = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    return read(
        "anthropic",
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *events,
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 2},
            **last,
        },
        {"type": "message_stop"},
    )[1].raw


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use", "mcp_tool_use", "brand_new_tool_use"])
def test_the_input_of_any_type_of_block_is_merged(kind: str) -> None:
    block = {"type": kind, "id": "t", "name": "n", "server_name": "s", "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"q"', ": 1}")]
    assert of_anthropic(block, *pieces)["content"] == [{**block, "input": {"q": 1}}]


def test_a_character_of_an_input_that_is_cut_into_two_pieces_is_whole() -> None:
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    pieces = [
        {"type": "input_json_delta", "partial_json": half}
        for half in ('{"a\ud83d', '\ude00": "\ud83d', '\ude00"}')
    ]
    assert of_anthropic(block, *pieces)["content"] == [{**block, "input": {"a😀": "😀"}}]


@pytest.mark.parametrize("before", [{}, {"citations": None}, {"citations": []}])
def test_citations_are_kept(before: dict[str, Any]) -> None:
    cited = [{"type": "char_location", "cited_text": text, "document_index": 0} for text in "ab"]
    deltas = [{"type": "citations_delta", "citation": citation} for citation in cited]
    text = {"type": "text_delta", "text": "Hi"}
    block = of_anthropic({"type": "text", "text": "", **before}, deltas[0], text, deltas[1])["content"][0]
    assert block == {"type": "text", "text": "Hi", "citations": cited}


def test_a_signature_and_deltas_of_an_unknown_type_are_kept() -> None:
    block = of_anthropic(
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "brand_new_delta", "new": "a"},
        {"type": "brand_new_delta", "new": "b"},
        {"type": "signature_delta", "signature": "sig"},
    )["content"][0]
    assert block == {"type": "thinking", "thinking": "hm", "signature": "sig", "new": "ab"}


def test_fields_beside_the_last_delta_are_kept() -> None:
    raw = of_anthropic({"type": "text", "text": "x"}, context_management={"applied_edits": []})
    assert raw == {
        "id": "m",
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        "context_management": {"applied_edits": []},
    }


def test_without_a_stream_too_the_first_choice_is_that_with_index_0() -> None:
    answer = {"choices": [{"index": i, "message": {"content": str(i)}} for i in (1, 0)]}
    assert PROVIDERS["openai"]().parse_completion(Head(200, {}), json.dumps(answer).encode()).text == "0"
