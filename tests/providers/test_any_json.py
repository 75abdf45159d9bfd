"""Whatever JSON an answer or an event has, and wherever a stream is cut: chunks, a completion, or our errors.

``LLM_POOL_EXAMPLES`` sets how many examples each test tries (default: 150).
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from random import Random
from traceback import walk_stack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.exceptions import InvalidResponse, LLMPoolError, StreamInterrupted
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import StreamReader
from llm_pool.providers.head import Head
from llm_pool.providers.results import Choice, Chunk, Citation, Completion, ToolCall, ToolCallPart
from llm_pool.providers.usage import Usage
from tests.providers.random_answers import RANDOM_ANSWERS

fuzzed = settings(max_examples=int(os.environ.get("LLM_POOL_EXAMPLES", "150")), deadline=None)

# What ``json.dumps`` does not write, but ``json.loads`` may read: these texts stand for it.
SPELLINGS = {
    '"<deep>"': '{"a":' * 400 + "1" + "}" * 400,
    '"<too deep>"': "[" * 100_000,
    '"<huge>"': "9" * 4000,
    '"<too huge>"': "9" * 5000,
}
NAMES = [
    *(
        "index",
        "type",
        "id",
        "name",
        "role",
        "object",
        "model",
        "usage",
        "error",
        "message",
        "status",
        "code",
    ),
    *("choices", "delta", "content", "finish_reason", "tool_calls", "function", "function_call", "custom"),
    *("arguments", "input", "refusal", "annotations", "citations", "context", "search_results", "audio"),
    *("reasoning", "thinking_blocks", "content_block", "partial_json", "stop_reason", "text", "thinking"),
    *("url", "title", "logprobs", "prompt_tokens_details", "cached_tokens", "citation", "stop_details"),
    *("output", "item", "item_id", "output_index", "part", "summary", "call_id", "response", "annotation"),
]
KINDS = [
    "text",
    "tool_use",
    "thinking",
    "text_delta",
    "input_json_delta",
    "message_start",
    "message",
    "error",
]
SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 10**20, 0.5, float("nan"), float("-inf")]),
    st.sampled_from(["", "{}", "{", "0", "\ud83d", "\ude00", "stop", "error", *KINDS]),
    st.sampled_from([spelling.strip('"') for spelling in SPELLINGS]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)
KEEP_ALIVES = ["", " ", "{}", '{"type": "ping"}', '{"choices": null}', "[DONE]", "[DONE] ", '{"error": null}']
ERRORS = ['{"error": {"message": "x"}}', '{"type": "error"}', '[{"error": "x"}]', '{"detail": [{"msg": 5}]}']


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value inside of ``value``, as the object or list that has it, and its name or position."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from places(item)


def replace(events: list[Any], random: Random, value: Any) -> None:
    container, key = random.choice(list(places(events)))
    container[key] = value


def remove(events: list[Any], random: Random, value: Any) -> None:
    container, key = random.choice(list(places(events)))
    del container[key]


def add(events: list[Any], random: Random, value: Any) -> None:
    containers = [container for container, _ in places(events)]
    container = random.choice(containers)
    if isinstance(container, dict):
        container[random.choice(NAMES)] = value
    else:
        container.insert(random.randrange(len(container) + 1), value)


def tell_again(events: list[Any], random: Random, value: Any) -> None:
    events.insert(random.randrange(len(events) + 1), random.choice(events))


def reorder(events: list[Any], random: Random, value: Any) -> None:
    first, second = random.randrange(len(events)), random.randrange(len(events))
    events[first], events[second] = events[second], events[first]


def keep_alive(events: list[Any], random: Random, value: Any) -> None:
    events.insert(random.randrange(len(events) + 1), random.choice(KEEP_ALIVES))


def fail(events: list[Any], random: Random, value: Any) -> None:
    events.insert(random.randrange(len(events) + 1), random.choice(ERRORS))


CHANGES: list[Callable[[list[Any], Random, Any], None]] = [
    *(replace, replace, replace, add, add, remove),
    *(tell_again, reorder, keep_alive, fail),
]
CHANGED = st.lists(st.tuples(st.sampled_from(CHANGES), VALUES), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32)
API_NAMES = tuple(RANDOM_ANSWERS)
APIS = st.sampled_from(API_NAMES)


def changed(events: list[Any], random: Random, changes: list[Any]) -> list[bytes]:
    """Make the changes; return each event, or each answer without a stream, as bytes."""
    events = json.loads(json.dumps(events))  # no two share a value
    for change, value in changes:
        if events:
            change(events, random, copy.deepcopy(value))
    return [encode(event) for event in events]


def framed(random: Random, event: bytes) -> bytes:
    """Frame an event; some as servers do that report errors beside the standard."""
    field = random.choice(
        [b"data: "] * 20 + [b"", b"error: ", b"event: error\ndata: ", b"event: ping\ndata: "]
    )
    return field + event + b"\n\n"


def encode(event: Any) -> bytes:
    text = event if isinstance(event, str) and not event.startswith("<") else json.dumps(event)
    for spelling, written in SPELLINGS.items():
        text = text.replace(spelling, written)
    return text.encode("utf-8", "surrogatepass")


# What is documented, whatever the answer was.


def check_chunk(chunk: Chunk, reader: StreamReader) -> None:
    assert type(reader.is_content(chunk)) is bool
    for each in {chunk, *chunk.choices}:
        assert type(each.raw) is dict
        assert {type(text) for text in (each.text, each.reasoning, each.refusal)} == {str}
        assert_text_or_none(each.finish_reason)
        assert type(each.index) is int
        for part in each.tool_calls:
            assert type(part) is ToolCallPart
            assert type(part.index) is int
            assert {type(text) for text in (part.id, part.name, part.arguments)} == {str}
        check_citations(each.citations)
        check_usage(each.usage)
        str(each), repr(each)


def check_completion(completion: Completion) -> None:
    check_choice(completion)
    assert type(completion.raw) is dict
    assert_text_or_none(completion.model)
    check_usage(completion.usage)
    assert completion.rate_limit is None
    str(completion), repr(completion)
    assert completion.choices
    for choice in completion.choices:
        check_choice(choice)
    assert pickle.loads(pickle.dumps(completion)) == completion
    json.dumps(completion.raw)


def check_choice(choice: Choice | Completion) -> None:
    assert {type(text) for text in (choice.text, choice.reasoning, choice.refusal)} == {str}
    choice.text.encode(), choice.reasoning.encode(), choice.refusal.encode()
    assert_text_or_none(choice.finish_reason)
    assert type(choice.tool_calls) is tuple
    for call in choice.tool_calls:
        assert type(call) is ToolCall
        assert type(call.raw) is dict
        assert {type(text) for text in (call.id, call.name, call.arguments)} == {str}
    check_citations(choice.citations)
    assert type(choice.message) is dict
    assert "role" in choice.message
    assert choice.audio is None or type(choice.audio) is dict
    str(choice), repr(choice), repr(choice.tool_calls)


def check_citations(citations: Any) -> None:
    assert type(citations) is tuple
    for citation in citations:
        assert type(citation) is Citation
        assert_text_or_none(citation.url)
        assert_text_or_none(citation.title)
        assert type(citation.text) is str


def check_usage(usage: Any) -> None:
    if usage is not None:
        assert type(usage) is Usage
        assert type(usage.raw) is dict
        counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
        assert {type(count) for count in counts} == {int}


def assert_text_or_none(value: Any) -> None:
    assert value is None or type(value) is str


def read(api: str, body: bytes, head: Head) -> Completion:
    """Read a stream to its end. Raises only an LLMPoolError."""
    reader = PROVIDERS[api]().stream_reader(head)
    texts = []
    for step in (lambda: reader.feed(body), lambda: [] if reader.finished else reader.end()):
        for chunk in step():
            check_chunk(chunk, reader)
            texts.append(chunk.text)
    completion = reader.completion()
    assert "".join(texts) == completion.text == reader.partial
    return completion


@fuzzed
@given(APIS, SEEDS, CHANGED)
def test_any_json_in_a_stream_gives_chunks_a_completion_or_an_error_of_ours(
    api: str, seed: int, changes: list[Any]
) -> None:
    random = Random(seed)
    answer = RANDOM_ANSWERS[api](random)
    events = changed(answer.events, random, changes)
    body = b"".join(framed(random, event) for event in events)
    with contextlib.suppress(LLMPoolError):
        check_completion(read(api, body, Head(200, {}, choices=answer.choices)))


@fuzzed
@given(APIS, SEEDS, CHANGED)
def test_any_json_in_a_whole_answer_gives_a_completion_or_an_error_of_ours(
    api: str, seed: int, changes: list[Any]
) -> None:
    random = Random(seed)
    answer = RANDOM_ANSWERS[api](random)
    head = Head(200, {}, choices=answer.choices)
    for body in changed([answer.whole], random, changes):
        with contextlib.suppress(LLMPoolError):
            check_completion(PROVIDERS[api]().parse_completion(head, body))


@pytest.mark.parametrize("api", API_NAMES)
@pytest.mark.parametrize(("opened", "closed"), [('{"error":', "}"), ('[{"a":', "}]"), ("[", "]")])
def test_json_nested_to_any_depth_gives_a_completion_or_an_error_of_ours(
    api: str, opened: str, closed: str
) -> None:
    provider, head = PROVIDERS[api](), Head(200, {})
    # Near Python's limit each level counts: what reads the value needs more of them than what has parsed it.
    most = sys.getrecursionlimit() - sum(1 for _ in walk_stack(None))
    for depth in [100, 400, *range(most - 25, most + 2), 100_000]:
        nested = opened * depth + "1" + closed * depth
        for outer in (
            "%s",
            '{"x":%s}',
            '{"error":%s}',
            '{"detail":%s}',
            '{"type":"error","a":%s}',
            '{"choices":[%s]}',
        ):
            body = (outer % nested).encode()
            for call in (
                lambda body: check_completion(provider.parse_completion(head, body)),
                lambda body: check_completion(read(api, b"data: %s\n\ndata: [DONE]\n\n" % body, head)),
                lambda body: provider.error_from_response(Head(500, {}), body),
            ):
                with contextlib.suppress(LLMPoolError):
                    call(body)


# Cut anywhere.


ENDS = {
    "anthropic": b'"message_delta"',
    "openai": b'"finish_reason"',
    "openai-responses": b'"total_tokens"',
}
"""A name that only the event has by which the provider says that the answer is complete, or its null."""


def check_prefix(api: str, frames: list[bytes], head: Head, cut: int) -> None:
    """Read the first ``cut`` bytes of a stream: the answer is complete only if its end has been said."""
    body, whole = b"".join(frames), read(api, b"".join(frames), head)
    end = ENDS[api]
    said = 0
    for number, frame in enumerate(frames):
        event = frame.partition(b"data:")[2].strip()
        if end in event and b'"finish_reason":null' not in event.replace(b" ", b""):
            said = len(b"".join(frames[:number])) + len(frame.rstrip(b"\r\n"))
    if cut < said:
        with pytest.raises((StreamInterrupted, InvalidResponse)) as caught:
            read(api, body[:cut], head)
        assert type(caught.value) is StreamInterrupted or cut < len(b"event:")
        assert whole.text.startswith(caught.value.partial)
        return
    completion = read(api, body[:cut], head)
    assert (completion.text, completion.tool_calls) == (whole.text, whole.tool_calls)
    reasons = [choice.finish_reason for choice in whole.choices]
    assert [choice.finish_reason for choice in completion.choices] == reasons


@fuzzed
@given(APIS, SEEDS, st.floats(0, 1))
def test_a_stream_that_is_cut_anywhere_is_complete_only_if_the_provider_has_said_so(
    api: str, seed: int, place: float
) -> None:
    random = Random(seed)
    answer = RANDOM_ANSWERS[api](random)
    frames = answer.frames(random)
    cut = round(place * sum(map(len, frames)))
    check_prefix(api, frames, Head(200, {}, choices=answer.choices), cut)


@pytest.mark.parametrize("api", API_NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_a_stream_that_is_cut_at_any_byte_is_complete_only_if_the_provider_has_said_so(
    api: str, seed: int
) -> None:
    random = Random(seed)
    answer = min((RANDOM_ANSWERS[api](random) for _ in range(5)), key=lambda answer: len(answer.events))
    frames = answer.frames(random)
    for cut in range(sum(map(len, frames)) + 1):
        check_prefix(api, frames, Head(200, {}, choices=answer.choices), cut)


@fuzzed
@given(APIS, SEEDS, st.floats(0, 1, exclude_max=True))
def test_a_whole_answer_that_is_cut_anywhere_is_an_invalid_response(
    api: str, seed: int, place: float
) -> None:
    random = Random(seed)
    answer = RANDOM_ANSWERS[api](random)
    body = answer.body(random)
    with pytest.raises(InvalidResponse):
        PROVIDERS[api]().parse_completion(Head(200, {}), body[: int(place * len(body))])
