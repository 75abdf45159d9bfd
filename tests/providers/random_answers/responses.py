"""Random responses: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from tests.providers.random_answers.answer import JSON, RandomAnswer, arguments_of, cut, random_text
from tests.providers.responses_events import events_of

__all__ = ["random_response"]


def random_response(random: Random) -> RandomAnswer:
    """Make a response of none to four items, complete or not."""
    items = [random.choice(_ITEMS)(random) for _ in range(random.choice([0, 1, 1, 2, 3, 4]))]
    reason = random.choice([None, None, "max_output_tokens", "content_filter"])
    whole: JSON = {
        "id": f"resp_{random.randrange(10**6)}",
        "object": "response",
        "created_at": 1_700_000_000.0,
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": random.choice([None, random_text(random)]),
        "metadata": {},
        "model": "gpt-5-mini",
        "output": [{"id": f"item_{number}", **item} for number, item in enumerate(items)],
        "parallel_tool_calls": True,
        "usage": _usage(random),
    }
    events: list[JSON | str] = [
        {**event, "sequence_number": number, **(_obfuscation(random) if "delta" in event else {})}
        for number, event in enumerate(events_of(whole, partial(cut, random)))
    ]
    return RandomAnswer(whole, events)


def _obfuscation(random: Random) -> JSON:
    return {"obfuscation": "x" * random.randrange(1, 9)} if random.random() < 0.3 else {}


def _usage(random: Random) -> JSON:
    sent, answered = random.randrange(1, 5000), random.randrange(1, 5000)
    return {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": random.randrange(sent)},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": random.randrange(answered)},
        "total_tokens": sent + answered,
    }


def _message(random: Random) -> JSON:
    content = [random.choice([_text, _text, _refusal])(random) for _ in range(random.choice([1, 1, 2]))]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


def _text(random: Random) -> JSON:
    annotations = [_annotation(random) for _ in range(random.choice([0, 0, 1, 2]))]
    return {
        "type": "output_text",
        "text": random_text(random, 20),
        "annotations": annotations,
        "logprobs": [],
    }


def _annotation(random: Random) -> JSON:
    title = random_text(random, 4)
    return random.choice(
        [
            {
                "type": "url_citation",
                "url": "https://a.test",
                "title": title,
                "start_index": 0,
                "end_index": 5,
            },
            {"type": "file_citation", "file_id": "file_1", "filename": "a.md", "index": 3},
        ]
    )


def _refusal(random: Random) -> JSON:
    return {"type": "refusal", "refusal": random_text(random)}


def _reasoning(random: Random) -> JSON:
    kind, field = random.choice([("summary_text", "summary"), ("reasoning_text", "content")])
    parts = [{"type": kind, "text": random_text(random)} for _ in range(random.randrange(3))]
    encrypted = random.choice([{}, {"encrypted_content": None}, {"encrypted_content": "gAAAAAB" * 9}])
    return {"type": "reasoning", "summary": [], field: parts, **encrypted}


def _function_call(random: Random) -> JSON:
    call: JSON = {
        "call_id": f"call_{random.randrange(10**6)}",
        "name": "f",
        "arguments": arguments_of(random),
    }
    return {"type": "function_call", "status": "completed", **call}


def _custom_tool_call(random: Random) -> JSON:
    call = {"call_id": f"call_{random.randrange(10**6)}", "name": "g", "input": random_text(random)}
    return {"type": "custom_tool_call", "status": "completed", **call}


def _mcp_call(random: Random) -> JSON:
    call = {"name": "h", "arguments": arguments_of(random), "output": random_text(random), "error": None}
    return {"type": "mcp_call", "server_label": "s", **call}


def _code(random: Random) -> JSON:
    call = {"code": random_text(random), "container_id": "cntr_1", "outputs": None}
    return {"type": "code_interpreter_call", "status": "completed", **call}


def _search(random: Random) -> JSON:
    action = {"type": "search", "query": random_text(random, 4)}
    return {"type": "web_search_call", "status": "completed", "action": action}


_ITEMS: list[Callable[[Random], JSON]] = [
    *(_message, _message, _message, _message, _message, _reasoning, _reasoning, _function_call),
    *(_function_call, _custom_tool_call, _mcp_call, _code, _search),
]
