"""Random messages: https://docs.anthropic.com/en/api/messages and .../build-with-claude/streaming"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.providers.random_answers.answer import JSON, RandomAnswer, arguments_of, cut, random_text

__all__ = ["random_message"]

_PING = {"type": "ping"}


def random_message(random: Random) -> RandomAnswer:
    """Make a message of none to four content blocks."""
    blocks = [random.choice(_BLOCKS)(random) for _ in range(random.choice([0, 1, 1, 2, 3, 4]))]
    start: JSON = {
        "id": f"msg_{random.randrange(10**6)}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    end, (usage, more_usage) = _end(random), _usage(random)
    events: list[JSON | str] = [{"type": "message_start", "message": {**start, "usage": usage}}]
    for index, (_, first, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": first})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": end, "usage": more_usage}, {"type": "message_stop"}]
    for _ in range(random.randrange(3)):
        events.insert(random.randrange(len(events)), _PING)
    whole = {**start, "content": [block for block, _, _ in blocks], **end, "usage": {**usage, **more_usage}}
    return RandomAnswer(whole, events)


def _end(random: Random) -> JSON:
    reason = random.choice(["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"])
    end: JSON = {"stop_reason": reason, "stop_sequence": "###" if reason == "stop_sequence" else None}
    if random.random() < 0.1:
        end["container"] = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    if reason == "refusal":
        end["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": random_text(random)}
    return end


def _usage(random: Random) -> tuple[JSON, JSON]:
    """Make the usage that the start of a message has, and what its end has."""
    usage: JSON = {"input_tokens": random.randrange(1, 5000), "output_tokens": random.randrange(1, 9)}
    more: JSON = {"output_tokens": random.randrange(9, 5000)}
    if random.random() < 0.6:
        written = random.randrange(100)
        usage["cache_creation_input_tokens"] = written
        usage["cache_read_input_tokens"] = random.randrange(100)
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0}
        usage["service_tier"] = random.choice(["standard", "priority", "batch"])
    if random.random() < 0.3:
        more["input_tokens"] = usage["input_tokens"] + random.randrange(100)
        more["server_tool_use"] = {"web_search_requests": random.randrange(1, 4)}
        more["output_tokens_details"] = {"thinking_tokens": random.randrange(9)}
    return usage, more


Block = tuple[JSON, JSON, list[JSON]]
"""A block: whole, as its start in a stream has it, and its deltas."""


def _text(random: Random) -> Block:
    text = random_text(random)
    return (
        {"type": "text", "text": text},
        {"type": "text", "text": ""},
        [{"type": "text_delta", "text": piece} for piece in cut(random, text)],
    )


def _cited_text(random: Random) -> Block:
    text, citations = random_text(random), [_citation(random) for _ in range(random.randint(1, 3))]
    deltas: list[JSON] = [{"type": "text_delta", "text": piece} for piece in cut(random, text)]
    for citation in citations:
        deltas.insert(random.randrange(len(deltas) + 1), {"type": "citations_delta", "citation": citation})
    ordered = [delta["citation"] for delta in deltas if "citation" in delta]
    return (
        {"type": "text", "text": text, "citations": ordered},
        {"type": "text", "text": "", "citations": []},
        deltas,
    )


def _citation(random: Random) -> JSON:
    text = random_text(random, 4)
    return random.choice(
        [
            {"type": "char_location", "cited_text": text, "document_index": 0, "document_title": text,
             "start_char_index": 0, "end_char_index": 9, "file_id": None},
            {"type": "web_search_result_location", "cited_text": text, "title": None,
             "url": "https://a.test", "encrypted_index": "RW5j"},
            {"type": "search_result_location", "cited_text": text, "title": "A", "source": "https://b.test",
             "search_result_index": 0, "start_block_index": 0, "end_block_index": 1},
        ]
    )  # fmt: skip


def _thinking(random: Random) -> Block:
    text, signature = random_text(random), "EqQB" * random.randint(1, 9)
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(random, text)]
    deltas.append({"type": "signature_delta", "signature": signature})
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "thinking", "thinking": text, "signature": signature}, start, deltas


def _redacted_thinking(random: Random) -> Block:
    block = {"type": "redacted_thinking", "data": "EmwKAhgB" * random.randint(1, 9)}
    return block, block, []


def _tool_use(random: Random, kind: str = "tool_use") -> Block:
    text = arguments_of(random) if random.random() < 0.9 else ""
    start = {"type": kind, "id": f"toolu_{random.randrange(10**6)}", "name": "web_search", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *cut(random, text)]]
    return {**start, "input": json.loads(text or "{}")}, start, deltas


def _server_tool_use(random: Random) -> Block:
    return _tool_use(random, "server_tool_use")


def _tool_result(random: Random) -> Block:
    found: Any = [
        {"type": "web_search_result", "url": "https://a.test", "title": random_text(random, 4),
         "encrypted_content": "RW5j", "page_age": None}
        for _ in range(random.randrange(3))
    ]  # fmt: skip
    if random.random() < 0.3:
        found = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    block = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": found}
    return block, block, []


_BLOCKS: list[Callable[[Random], Block]] = [
    _text,
    _text,
    _cited_text,
    _thinking,
    _redacted_thinking,
    _tool_use,
    _tool_use,
    _server_tool_use,
    _tool_result,
]
