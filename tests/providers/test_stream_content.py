"""Which chunks of a stream are content, and which are keep-alives."""

from __future__ import annotations

import json

import pytest

from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head


def is_content(provider, *events):
    """Whether the chunk of the last event is content; the events before it begin the stream."""
    reader = PROVIDERS[provider]().stream_reader(Head(200, {}))
    for event in events:
        name = f"event: {event['type']}\n" if "type" in event else ""
        [chunk] = reader.feed(f"{name}data: {json.dumps(event)}\n\n".encode())
    return reader.is_content(chunk)


def choice(index=0, **delta):
    return {"choices": [{"index": index, "delta": delta}]}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (choice(content="a"), True),
        (choice(reasoning_content="a"), True),
        (choice(refusal="a"), True),
        (choice(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]), True),
        (choice(index=1, content="a"), True),
        ({"choices": [{"index": 0, "message": {"reasoning": "a"}}]}, True),
        ({"choices": [{"index": 0, "message": {"refusal": "a"}}]}, True),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, True),
        (choice(role="assistant", content=""), False),
        (choice(role="assistant", content=None, refusal=None), False),
        (choice(), False),
        ({"choices": [{"index": 0}]}, False),
        ({"choices": []}, False),
        ({"choices": [], "usage": {"prompt_tokens": 1}}, False),
    ],
)
def test_content_of_openai(event, expected):
    assert is_content("openai", event) is expected


START = {"type": "message_start", "message": {"role": "assistant", "content": []}}


def block(**fields):
    return {"type": "content_block_start", "index": 0, "content_block": fields}


def delta(**fields):
    return {"type": "content_block_delta", "index": 0, "delta": fields}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([START, block(type="text", text=""), delta(type="text_delta", text="a")], True),
        ([START, block(type="thinking", thinking=""), delta(type="thinking_delta", thinking="a")], True),
        ([START, block(type="tool_use", id="1", name="n", input={})], True),
        ([START, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}], True),
        ([START], False),
        ([START, block(type="text", text="")], False),
        ([START, block(type="text", text=""), delta(type="text_delta", text="")], False),
        ([{"type": "ping"}], False),
        ([{"type": "unknown", "delta": "a"}], False),
    ],
)
def test_content_of_anthropic(events, expected):
    assert is_content("anthropic", *events) is expected
