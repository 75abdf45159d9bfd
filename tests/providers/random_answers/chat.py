"""Random chat completions, with Azure's filter results: https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.providers.random_answers.answer import (
    JSON,
    RandomAnswer,
    arguments_of,
    cut,
    merged,
    random_text,
)

__all__ = ["random_chat_completion"]

_FILTERS = {
    "hate": {"filtered": False, "severity": "safe"},
    "jailbreak": {"filtered": False, "detected": False},
}


def random_chat_completion(random: Random) -> RandomAnswer:
    """Make an answer with one to three choices."""
    count = random.choice([1, 1, 1, 2, 3])
    choices = [_choice(random, index) for index in range(count)]
    top = _top_level(random)
    usage = _usage(random)
    has_filters = random.random() < 0.2
    whole = {**top, "object": "chat.completion", "choices": [choice for choice, _ in choices], "usage": usage}
    chunk = {**top, "object": "chat.completion.chunk", "usage": None}
    events: list[JSON | str] = []
    if has_filters:
        whole["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _FILTERS}]
        events.append(
            {"id": "", "object": "", "created": 0, "model": "", "choices": [],
             "prompt_filter_results": whole["prompt_filter_results"]}
        )  # fmt: skip
    events += [
        {**chunk, "choices": [part], **_obfuscation(random)}
        for part in [
            *(parts[0] for _, parts in choices),
            *merged(random, *(parts[1:] for _, parts in choices)),
        ]
    ]
    events.append({**chunk, "choices": [], "usage": usage})
    if random.random() < 0.1:
        results = {"type": "moderation_results", "model": "omni-moderation", "results": []}
        error = {"type": "error", "code": "unavailable", "message": "try again"}
        whole["moderation"] = {"input": results, "output": random.choice([results, error])}
        events.append({**chunk, "choices": [], "usage": usage, "moderation": whole["moderation"]})
    return RandomAnswer(whole, [*events, "[DONE]"], count)


def _top_level(random: Random) -> JSON:
    top: JSON = {"id": f"chatcmpl-{random.randrange(10**6)}", "created": 1_700_000_000, "model": "gpt-4o"}
    if random.random() < 0.5:
        top["service_tier"] = random.choice(["default", "priority", "flex"])
    if random.random() < 0.5:
        top["system_fingerprint"] = random.choice([None, "fp_1"])
    return top


def _obfuscation(random: Random) -> JSON:
    return {"obfuscation": "x" * random.randrange(1, 9)} if random.random() < 0.3 else {}


def _usage(random: Random) -> JSON:
    sent, answered = random.randrange(1, 5000), random.randrange(1, 5000)
    usage: JSON = {
        "prompt_tokens": sent,
        "completion_tokens": answered,
        "total_tokens": sent + answered,
    }
    if random.random() < 0.6:
        usage["prompt_tokens_details"] = {"cached_tokens": random.randrange(sent), "audio_tokens": 0}
        usage["completion_tokens_details"] = {
            "reasoning_tokens": random.randrange(answered),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return usage


def _choice(random: Random, index: int) -> tuple[JSON, list[JSON]]:
    """Make a choice: whole, and its parts in a stream."""
    kind, reason = random.choice(_KINDS)
    message, logprobs, parts = kind(random)
    parts = [{"delta": delta, "logprobs": found} for delta, found in parts]
    if random.random() < 0.3:
        parts.insert(random.randrange(1, len(parts) + 1), {"delta": {}, "logprobs": None})
    if reason == "stop":
        reason = random.choice(["stop", "stop", "length", "content_filter"])
    whole = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}
    last = {"delta": {}, "logprobs": None, "finish_reason": reason}
    if random.random() < 0.2:
        whole["content_filter_results"] = last["content_filter_results"] = _FILTERS
    parts = [{"index": index, "finish_reason": None, **part} for part in [*parts, last]]
    return whole, parts


Parts = list[tuple[JSON, JSON | None]]
"""The deltas of a message, each with the log probabilities of its tokens."""


def _text(random: Random) -> tuple[JSON, JSON | None, Parts]:
    text, has_logprobs = random_text(random), random.random() < 0.25
    pieces = cut(random, text, between_halves=not has_logprobs)  # no token has half a character
    message: JSON = {"role": "assistant", "content": text, "refusal": None}
    parts: Parts = [({"role": "assistant", "content": "", "refusal": None}, None)]
    logprobs = None
    if has_logprobs:
        tokens = [_token(random, piece) for piece in pieces]
        logprobs = {"content": tokens, "refusal": None}
        parts += [
            ({"content": piece}, {"content": [token], "refusal": None})
            for piece, token in zip(pieces, tokens, strict=True)
        ]
    else:
        parts += [({"content": piece}, None) for piece in pieces]
    if random.random() < 0.2:
        message["annotations"] = [_annotation(random) for _ in range(random.randint(1, 3))]
        parts.append(({"annotations": message["annotations"]}, None))
    return message, logprobs, parts


def _token(random: Random, piece: str) -> JSON:
    token = {"token": piece, "logprob": -random.random(), "bytes": list(piece.encode())}
    return {**token, "top_logprobs": [dict(token)] if random.random() < 0.5 else []}


def _annotation(random: Random) -> JSON:
    where = {"start_index": 0, "end_index": random.randrange(9)}
    cited = {"url": f"https://a.test/{random.randrange(9)}", "title": random_text(random, 3), **where}
    return {"type": "url_citation", "url_citation": cited}


def _refusal(random: Random) -> tuple[JSON, None, Parts]:
    text = random_text(random)
    parts: Parts = [({"role": "assistant", "content": None}, None)]
    parts += [({"refusal": piece}, None) for piece in cut(random, text)]
    return {"role": "assistant", "content": None, "refusal": text}, None, parts


def _tool_calls(random: Random) -> tuple[JSON, None, Parts]:
    message: JSON = {"role": "assistant", "content": None}
    parts: Parts = [({"role": "assistant", "content": None}, None)]
    if random.random() < 0.3:
        message["content"] = random_text(random, 4)
        parts += [({"content": piece}, None) for piece in cut(random, message["content"])]
    calls, sequences = [], []
    for index in range(random.choice([1, 1, 2, 3])):
        call = {"id": f"call_{index}{random.randrange(10**6)}", "type": "function"}
        name, arguments = f"tool_{random.randrange(3)}", arguments_of(random)
        calls.append({**call, "function": {"name": name, "arguments": arguments}})
        first = {"index": index, **call, "function": {"name": name, "arguments": ""}}
        rest = [{"index": index, "function": {"arguments": piece}} for piece in cut(random, arguments)]
        sequences.append([first, *rest])
    message["tool_calls"] = calls
    parts += [({"tool_calls": [part]}, None) for sequence in sequences for part in sequence]
    return message, None, parts


def _function_call(random: Random) -> tuple[JSON, None, Parts]:
    name, arguments = f"tool_{random.randrange(3)}", arguments_of(random)
    parts: Parts = [({"role": "assistant", "content": None}, None)]
    parts.append(({"function_call": {"name": name, "arguments": ""}}, None))
    parts += [({"function_call": {"arguments": piece}}, None) for piece in cut(random, arguments)]
    message = {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": arguments}}
    return message, None, parts


def _audio(random: Random) -> tuple[JSON, None, Parts]:
    audio = {"id": "audio_1", "data": "UklGRg" * random.randint(1, 5), "transcript": random_text(random)}
    parts: Parts = [({"role": "assistant", "content": None, "audio": {"id": "audio_1"}}, None)]
    parts += [
        ({"audio": part}, None)
        for part in merged(
            random,
            [{"data": piece} for piece in cut(random, audio["data"])],
            [{"transcript": piece} for piece in cut(random, audio["transcript"])],
        )
    ]
    parts.append(({"audio": {"expires_at": 1_700_000_000}}, None))
    message = {"role": "assistant", "content": None, "audio": {**audio, "expires_at": 1_700_000_000}}
    return message, None, parts


_KINDS: list[tuple[Callable[[Random], tuple[JSON, JSON | None, Parts]], str]] = [
    (_text, "stop"),
    (_text, "stop"),
    (_refusal, "stop"),
    (_tool_calls, "tool_calls"),
    (_tool_calls, "tool_calls"),
    (_function_call, "function_call"),
    (_audio, "stop"),
]
