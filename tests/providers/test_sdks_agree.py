"""The vendors' own SDKs read the same random answers as the pool: each difference is one that is named here.

``LLM_POOL_EXAMPLES`` sets how many answers of each API are tried, each whole and as a stream (default: 75).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import anthropic
import openai
import pytest

from llm_pool.providers.texts import repair_surrogates
from tests.providers.random_answers import RANDOM_ANSWERS, RandomAnswer

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.providers.results import Chunk, Completion
    from testbed.provider import ScriptedProvider

EXAMPLES = int(os.environ.get("LLM_POOL_EXAMPLES", "75"))
ASK: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}
ASK_RESPONSES: dict[str, Any] = {"model": "test-model", "input": "hello"}
MISSING = "(missing)"

JSON = dict[str, Any]


class Difference(NamedTuple):
    """A value that the pool and an SDK read differently. ``path`` leads to it: names, and positions."""

    path: tuple[Any, ...]
    ours: Any
    theirs: Any


def in_halves(found: Difference) -> bool:
    return isinstance(found.theirs, str) and bool(found.ours == repair_surrogates(found.theirs))


PARSED_TIME = "the SDK parses times"
HALVES = "the SDK does not join the halves of a character that two events have"
# Why the pool and an SDK differ, and which differences that explains.
EXPLANATIONS: dict[str, dict[str, Callable[[Difference], bool]]] = {
    "openai": {
        "the SDK adds each field that its classes declare, as null": lambda found: (
            found.ours == MISSING and found.theirs is None
        ),
        "the SDK leaves the index in a tool call, which a whole answer does not have": lambda found: (
            found.ours == MISSING and found.path[-1] == "index" and found.path[-3] == "tool_calls"
        ),
        "the SDK drops the fields of a choice but the first event's": lambda found: (
            found.theirs == MISSING and found.path[-1] == "content_filter_results"
        ),
        'the SDK drops Azure\'s first event, whose "object" is empty': lambda found: (
            found.theirs == MISSING and found.path[-1] == "prompt_filter_results"
        ),
        HALVES: in_halves,
        "the SDK raises where the answer was cut or filtered": lambda found: (
            found.path == ("raised",) and found.theirs.endswith("FinishReasonError")
        ),
    },
    "openai-responses": {
        "the SDK adds what it has parsed of a text or of arguments, as null": lambda found: (
            found.path[-1] in {"parsed", "parsed_arguments"} and found[1:] == (MISSING, None)
        ),
        HALVES: in_halves,
    },
    "anthropic": {
        "the SDK adds the stop_details, as null": lambda found: (
            found == (("raw", "stop_details"), MISSING, None)
        ),
        HALVES: in_halves,
        PARSED_TIME: lambda found: (
            isinstance(found.theirs, datetime) and found.theirs == datetime.fromisoformat(found.ours)
        ),
        "the SDK raises where a tool's input has half a character": lambda found: (
            found.path == ("raised",) and found.theirs == "UnicodeEncodeError"
        ),
    },
}


def differences(ours: Any, theirs: Any, path: tuple[Any, ...] = ()) -> Iterator[Difference]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in {**ours, **theirs}:
            yield from differences(ours.get(name, MISSING), theirs.get(name, MISSING), (*path, name))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for position, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(our, their, (*path, position))
    elif ours != theirs or type(ours) is not type(theirs):
        yield Difference(path, ours, theirs)


def explanation(api: str, found: Difference) -> str:
    why = next((why for why, fits in EXPLANATIONS[api].items() if fits(found)), None)
    assert why is not None, found
    return why


# What each side has read as JSON: by the pool's names what is common to both, and the whole answer as "raw".


def of_pool(completion: Completion, chunks: list[Chunk] | None = None) -> JSON:
    usage = completion.usage
    assert usage is not None
    return {
        "text": completion.text,
        "chunks": completion.text if chunks is None else "".join(chunk.text for chunk in chunks),
        "reasoning": completion.reasoning,
        "refusal": completion.refusal,
        "tool_calls": [[call.id, call.name, call.arguments] for call in completion.tool_calls],
        "finish_reason": completion.finish_reason,
        "usage": [usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens],
        "raw": completion.raw,
        "raised": None,
    }


def of_openai(found: Any, chunks: str | None = None, raised: str | None = None) -> JSON:
    message, usage = found.choices[0].message, found.usage
    calls = [[call.id, call.function] for call in message.tool_calls or ()]
    calls += [["", message.function_call]] if message.function_call else []
    sent, answered = usage and usage.prompt_tokens_details, usage and usage.completion_tokens_details
    return {
        "text": message.content or "",
        "chunks": (message.content or "") if chunks is None else chunks,
        "reasoning": "",
        "refusal": message.refusal or "",
        "tool_calls": [[identifier, call.name, call.arguments] for identifier, call in calls],
        "finish_reason": found.choices[0].finish_reason,
        "usage": usage and [
            usage.prompt_tokens,
            usage.completion_tokens,
            (sent and sent.cached_tokens) or 0,
            (answered and answered.reasoning_tokens) or 0,
        ],
        "raw": dump(found),
        "raised": raised,
    }  # fmt: skip


def of_response(found: Any, chunks: str | None = None) -> JSON:
    parts = [part for item in found.output if item.type == "message" for part in item.content]
    calls = [item for item in found.output if item.type in {"function_call", "custom_tool_call"}]
    thoughts = [item for item in found.output if item.type == "reasoning"]
    usage, details = found.usage, found.incomplete_details
    return {
        "text": found.output_text,
        "chunks": found.output_text if chunks is None else chunks,
        "reasoning": "\n\n".join(
            part.text for item in thoughts for part in item.summary or item.content or ()
        ),
        "refusal": "".join(part.refusal for part in parts if part.type == "refusal"),
        "tool_calls": [
            [call.call_id, call.name, call.arguments if call.type == "function_call" else call.input]
            for call in calls
        ],
        "finish_reason": details.reason if details else found.status,
        "usage": [
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ],
        "raw": dump(found),
        "raised": None,
    }


def of_anthropic(found: Any, chunks: str | None = None) -> JSON:
    text = "".join(block.text for block in found.content if block.type == "text")
    usage, calls = found.usage, [block for block in found.content if block.type == "tool_use"]
    return {
        "text": text,
        "chunks": text if chunks is None else chunks,
        "reasoning": "".join(block.thinking for block in found.content if block.type == "thinking"),
        "refusal": (found.stop_details and found.stop_details.explanation) or "",
        "tool_calls": [[call.id, call.name, json.dumps(call.input, ensure_ascii=False)] for call in calls],
        "finish_reason": found.stop_reason,
        "usage": [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens or 0,
            (usage.output_tokens_details and usage.output_tokens_details.thinking_tokens) or 0,
        ],
        "raw": dump(found),
        "raised": None,
    }


def dump(found: Any) -> JSON:
    plain: JSON = found.model_dump(exclude_unset=True, warnings=False)
    return plain


def stream_openai(client: openai.OpenAI, params: JSON) -> JSON:
    with client.chat.completions.stream(**ASK, **params) as stream:
        parts = [part for event in stream if event.type == "chunk" for part in event.chunk.choices]
        chunks = "".join(part.delta.content or "" for part in parts if part.index == 0)
        try:
            return of_openai(stream.get_final_completion(), chunks)
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError) as error:
            return of_openai(stream.current_completion_snapshot, chunks, type(error).__name__)


def stream_response(client: openai.OpenAI, params: JSON) -> JSON:
    with client.responses.stream(**ASK_RESPONSES, **params) as stream:
        events = list(stream)
    chunks = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return of_response(events[-1].response, chunks)


def stream_anthropic(client: anthropic.Anthropic, params: JSON) -> JSON:
    with client.messages.stream(**ASK, **params) as stream:
        try:
            chunks = "".join(event.text for event in stream if event.type == "text")
        except UnicodeEncodeError as error:
            return {"raised": type(error).__name__}
        return of_anthropic(stream.get_final_message(), chunks)


class SDK(NamedTuple):
    """How an SDK makes a client, asks for a whole answer and for a stream, and what each call needs."""

    client: Callable[..., Any]
    whole: Callable[[Any, JSON], JSON]
    stream: Callable[[Any, JSON], JSON]
    params: JSON


SDKS = {
    "openai": SDK(
        openai.OpenAI,
        lambda client, params: of_openai(client.chat.completions.create(**ASK, **params)),
        stream_openai,
        {},
    ),
    "openai-responses": SDK(
        openai.OpenAI,
        lambda client, params: of_response(client.responses.create(**ASK_RESPONSES, **params)),
        stream_response,
        {},
    ),
    "anthropic": SDK(
        anthropic.Anthropic,
        lambda client, params: of_anthropic(client.messages.create(**ASK, **params)),
        stream_anthropic,
        {"max_tokens": 9},
    ),
}


class Reading(NamedTuple):
    """An answer, and what the pool and the SDK have read of it."""

    answer: RandomAnswer
    ours: JSON
    theirs: JSON


@pytest.fixture
def readings(
    llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]
) -> Callable[[str, bool], Iterator[Reading]]:
    """``readings("openai", stream)`` yields ``EXAMPLES`` answers, each sent once to each side."""

    def read(api: str, stream: bool) -> Iterator[Reading]:
        pool, sdk = configure(llm_provider, **llm_provider.settings(api)), SDKS[api]
        url = llm_provider.anthropic_url if api == "anthropic" else llm_provider.openai_url
        with sdk.client(base_url=url, api_key="sk-test", max_retries=0) as client:
            for seed in range(EXAMPLES):
                random = Random(seed)
                answer = RANDOM_ANSWERS[api](random)
                params = sdk.params | ({"n": answer.choices} if answer.choices > 1 else {})
                if stream:
                    pieces = answer.stream(random)
                    llm_provider.events(*pieces)
                    llm_provider.events(*pieces)
                    ours = read_stream(pool, params)
                else:
                    body = answer.body(random)
                    llm_provider.body(body, headers={"Content-Type": "application/json"})
                    llm_provider.body(body, headers={"Content-Type": "application/json"})
                    ours = of_pool(pool.complete("hello", **params))
                yield Reading(answer, ours, (sdk.stream if stream else sdk.whole)(client, params))

    return read


def read_stream(pool: LLMPool, params: JSON) -> JSON:
    with pool.stream("hello", **params) as stream:
        chunks = list(stream)
    assert stream.completion is not None
    return of_pool(stream.completion, chunks)


@pytest.mark.parametrize("api", SDKS)
def test_a_whole_answer_is_what_the_sdk_reads(
    api: str, readings: Callable[[str, bool], Iterator[Reading]]
) -> None:
    for answer, ours, theirs in readings(api, False):
        assert ours["raw"] == answer.whole
        assert {explanation(api, found) for found in differences(ours, theirs)} <= {PARSED_TIME}


@pytest.mark.parametrize("api", SDKS)
def test_a_stream_is_what_the_sdk_reads_but_for_differences_that_are_explained(
    api: str, readings: Callable[[str, bool], Iterator[Reading]]
) -> None:
    met: set[str] = set()
    for answer, ours, theirs in readings(api, True):
        assert ours["raw"] == answer.whole
        assert ours["chunks"] == ours["text"]
        found = list(differences(ours, theirs))
        if "raw" not in theirs:  # the SDK has read nothing
            found = [difference for difference in found if difference.path == ("raised",)]
        met |= {explanation(api, difference) for difference in found}
    assert met == {*EXPLANATIONS[api]}, "an explanation that explains nothing"
