"""Each name of an answer in each kind of call, and the turn that goes into the next call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from testbed.provider import ToolCall
from tests.fixtures.calls import CALLS, STREAMS, ask
from tests.providers.shapes import SHAPES, assert_found

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider

PARAMS: dict[str, dict[str, Any]] = {"openai": {}, "openai-responses": {}, "anthropic": {"max_tokens": 9}}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_name_is_read_in_each_kind_of_call(
    name: str, call: str, llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]
) -> None:
    shape = SHAPES[name]
    if call in STREAMS:
        end = [b"data: [DONE]\n\n"] if shape.provider == "openai" else []
        llm_provider.events(*shape.events, *end)
    else:
        llm_provider.body(shape.whole)
    pool = configure(llm_provider, **llm_provider.settings(shape.provider))
    completion = ask(call, pool, **PARAMS[shape.provider])
    assert_found(completion, shape.expected)
    assert completion.raw == shape.whole


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("api", ["openai", "anthropic"])  # the other: test_responses.py
def test_the_turn_goes_back_whole_into_the_next_call(
    api: str, call: str, llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]
) -> None:
    """With its reasoning, the signature of it, the text and the tool call, as the provider sent them."""
    tools = [ToolCall("weather", {"city": "Rome"}, "call_1")]
    llm_provider.stream(["Let me ", "see."], reasoning=["2", "+2"], signature="SIG", tool_calls=tools)
    pool = configure(llm_provider, **llm_provider.settings(api))
    question = {"role": "user", "content": "Is it warm in Rome?"}
    turn = ask(call, pool, [question], **PARAMS[api]).message
    ask(call, pool, [question, turn, question], **PARAMS[api])
    sent = llm_provider.requests[-1].json()["messages"]
    assert sent == [question, turn, question]
    text = json.dumps(turn)
    for part in ("2+2", "Let me see.", "call_1", "weather", "Rome", *(["SIG"] if api == "anthropic" else [])):
        assert part in text


@pytest.mark.parametrize("call", CALLS)
def test_the_headers_say_what_is_left(
    call: str, llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]
) -> None:
    limits = {"X-RateLimit-Limit-Requests": "60", "X-RateLimit-Remaining-Requests": "59", "X-Own": "yes"}
    llm_provider.reply("Hello", headers=limits)
    completion = ask(call, configure(llm_provider, **llm_provider.settings()))
    assert completion.headers["x-own"] == completion.headers["X-Own"] == "yes"
    assert completion.rate_limit is not None
    assert completion.rate_limit.requests is not None
    assert (completion.rate_limit.requests.limit, completion.rate_limit.requests.remaining) == (60, 59)


@pytest.mark.parametrize("call", CALLS)
def test_several_choices_are_told_apart(
    call: str, llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]
) -> None:
    llm_provider.stream(["A", "a"], ["B", "b"])
    completion = ask(call, configure(llm_provider, **llm_provider.settings()), n=2)
    assert completion.text == "Aa"
    assert [(choice.index, choice.text) for choice in completion.choices] == [(0, "Aa"), (1, "Bb")]
