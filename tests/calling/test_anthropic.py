"""Anthropic's Messages API over real connections, by each kind of call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

from llm_pool import exceptions, pools
from tests.fixtures.calls import CALLS, STREAMS, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider


@pytest.fixture
def claude(llm_provider: ScriptedProvider, secret: str) -> Iterator[LLMPool]:
    """A pool for Anthropic's API."""
    settings = llm_provider.settings("anthropic", API_KEY=secret, MODEL="claude-test")
    with override_settings(LLM_POOL={"default": settings}):
        yield pools["default"]


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_returned(
    call: str, claude: LLMPool, llm_provider: ScriptedProvider, secret: str
) -> None:
    llm_provider.stream(["Hel", "lo!"], usage=(3, 2))
    completion = ask(call, claude, max_tokens=9)
    assert (completion.text, completion.finish_reason, completion.model) == (
        "Hello!",
        "end_turn",
        "claude-test",
    )
    assert completion.usage is not None
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 2)
    [request] = llm_provider.requests
    assert (request.target, request.headers["x-api-key"]) == ("/v1/messages", secret)
    assert "anthropic-version" in request.headers
    assert request.json()["model"] == "claude-test"


@pytest.mark.parametrize("call", CALLS)
def test_connections_are_reused(call: str, claude: LLMPool, llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello!")
    for _ in range(3):
        ask(call, claude, max_tokens=9)
    assert llm_provider.connections_accepted == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_529_raises_overloaded(call: str, claude: LLMPool, llm_provider: ScriptedProvider) -> None:
    llm_provider.fail(529)
    with pytest.raises(exceptions.Overloaded, match="Overloaded"):
        ask(call, claude, max_tokens=9)


@pytest.mark.parametrize("call", STREAMS)
def test_an_error_in_mid_stream_has_the_text_so_far(
    call: str, claude: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.fail_in_stream("overloaded", after=1, pieces=["Hel", "lo!"])
    with pytest.raises(exceptions.APIError, match="Overloaded") as caught:
        ask(call, claude, max_tokens=9)
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_without_its_last_event_is_interrupted(
    call: str, claude: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.cut_after(2, pieces=["Hel", "lo!"], last_chunk=True)
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        ask(call, claude, max_tokens=9)
    assert caught.value.partial == "Hello!"
