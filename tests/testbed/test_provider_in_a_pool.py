"""A pool of this package on the scripted provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from llm_pool import exceptions, pools
from llm_pool.diagnostics.report import Verdict
from tests.fixtures.calls import CALLS, STREAMS, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider

PARAMS: dict[str, dict[str, Any]] = {"openai": {}, "anthropic": {"max_tokens": 9}}


@pytest.fixture(params=PARAMS)
def api(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pool(llm_provider: ScriptedProvider, api: str) -> Iterator[LLMPool]:
    with override_settings(LLM_POOL={"default": llm_provider.settings(api)}):
        yield pools["default"]


@pytest.mark.parametrize("call", CALLS)
def test_a_pool_reads_the_answer(llm_provider: ScriptedProvider, pool: LLMPool, api: str, call: str) -> None:
    llm_provider.stream(["Hel", "lo"], usage=(7, 3))
    completion = ask(call, pool, "Hi", **PARAMS[api])
    assert completion.text == "Hello" and completion.request_id == "req_1"
    assert completion.usage is not None
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (7, 3)
    assert llm_provider.requests[0].json()["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("call", CALLS)
def test_a_pool_raises_the_error(llm_provider: ScriptedProvider, pool: LLMPool, api: str, call: str) -> None:
    llm_provider.fail("rate_limited", retry_after=3)
    with pytest.raises(exceptions.RateLimited) as caught:
        ask(call, pool, "Hi", **PARAMS[api])
    assert caught.value.retry_after == 3


@pytest.mark.parametrize("call", STREAMS)
def test_a_pool_keeps_the_text_of_a_cut_stream(
    llm_provider: ScriptedProvider, pool: LLMPool, api: str, call: str
) -> None:
    llm_provider.cut_after(2)
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        ask(call, pool, "Hi", **PARAMS[api])
    assert caught.value.partial == "1 2 "


async def test_a_pool_finds_the_models(llm_provider: ScriptedProvider, pool: LLMPool) -> None:
    assert (await pool.acheck()).verdict is not Verdict.BROKEN
    assert {request.path for request in llm_provider.requests} == {"/v1/models"}
