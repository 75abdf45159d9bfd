"""``embed`` and ``aembed``: one request or several, in order, and what remains if one fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.exceptions import InvalidParameter, InvalidRequest, InvalidResponse, RateLimited
from llm_pool.providers.openai import OpenAI
from llm_pool.providers.usage import Usage
from testbed.provider import vector
from tests.fixtures.callers import gated

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import CallRecord
    from llm_pool.providers.results import Embeddings
    from testbed.provider import ScriptedProvider


class Small(OpenAI):
    """A server that accepts two texts in a request."""

    max_embedding_inputs = 2


EMBED = pytest.mark.parametrize("call", ["embed", "aembed"])
LETTERS = ["a", "b", "c", "d", "e"]


def embed(call: str, pool: LLMPool, inputs: Any, **params: Any) -> Embeddings:
    return pool.embed(inputs, **params) if call == "embed" else asyncio.run(pool.aembed(inputs, **params))


@pytest.fixture
def small_pool(configure: Callable[..., LLMPool], llm_provider: ScriptedProvider) -> LLMPool:
    """A pool of ``Small``, and a server that refuses more than two texts."""
    llm_provider.max_inputs = 2
    return configure(llm_provider, PROVIDER=f"{__name__}.Small")


@EMBED
@pytest.mark.parametrize("way", ["direct", "through event hooks"])
def test_a_call_is_one_post_and_returns_a_vector_for_each_text(
    way: str, call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider,
    records: list[CallRecord],
) -> None:  # fmt: skip
    pool = configure(llm_provider)
    if way != "direct":
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [hook]}
    found = embed(call, pool, ["one", "two words"], dimensions=3)
    assert found.vectors == [vector("one", 3), vector("two words", 3)]
    assert (found.model, found.usage, found.request_id) == ("test-model", Usage(3, 0), "req_1")
    assert found.headers["X-Request-Id"] == "req_1"
    assert found.timing is not None
    assert found.timing.total > 0
    (request,) = llm_provider.requests
    assert (request.method, request.target) == ("POST", "/v1/embeddings")
    sent = {"input": ["one", "two words"], "dimensions": 3, "encoding_format": "base64"}
    assert request.json() == {"model": "test-model", **sent}
    (record,) = records
    assert (record.operation, record.model) == ("embed", "test-model")
    assert (record.error, record.status_code, record.usage) == (None, 200, Usage(3, 0))
    assert pool.stats().input_tokens == 3


@EMBED
@pytest.mark.parametrize("inputs", ["Hé!", [1, 2, 3]])
def test_one_text_needs_no_list(
    inputs: Any, call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    found = embed(call, configure(llm_provider), inputs, model="other", encoding_format="float")
    assert (found.vectors, found.model) == ([vector(inputs)], "other")


@EMBED
def test_too_many_texts_go_out_in_several_requests_and_come_back_in_order(
    call: str, small_pool: LLMPool, llm_provider: ScriptedProvider, records: list[CallRecord]
) -> None:
    found = embed(call, small_pool, LETTERS)
    sent = [request.json()["input"] for request in llm_provider.requests]
    assert sent == [["a", "b"], ["c", "d"], ["e"]]
    assert found.vectors == [vector(letter) for letter in LETTERS]
    assert found.usage == Usage(5, 0)
    assert found.request_id == "req_3"
    assert [record.usage for record in records] == [Usage(2, 0), Usage(2, 0), Usage(1, 0)]
    assert found.timing is not None
    assert records[0].timing.total < found.timing.total <= sum(record.timing.total for record in records)
    assert llm_provider.connections_accepted == 1


@EMBED
def test_the_error_of_one_request_ends_the_call(
    call: str, small_pool: LLMPool, llm_provider: ScriptedProvider, records: list[CallRecord]
) -> None:
    llm_provider.vectors([1.0], [2.0])
    llm_provider.fail(429)
    with pytest.raises(RateLimited):
        embed(call, small_pool, LETTERS)
    assert [record.error for record in records] == [None, "RateLimited"]
    assert len(llm_provider.requests) == 2


async def test_a_cancelled_call_sends_no_more(
    small_pool: LLMPool, llm_provider: ScriptedProvider, records: list[CallRecord]
) -> None:
    llm_provider.vectors([1.0], [2.0])
    llm_provider.play(gated())
    task = asyncio.create_task(small_pool.aembed(LETTERS))
    await llm_provider.await_requests(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.error for record in records] == [None, "CancelledError"]
    assert len(llm_provider.requests) == 2


@EMBED
@pytest.mark.parametrize(
    ("inputs", "params", "says"),
    [
        ([], {}, "inputs is empty"),
        (b"a", {}, "inputs is a bytes"),
        (["a"], {"dimensions": float("nan")}, "dimensions is nan"),
        (["a", "b", "c", "half a \ud83d pair"], {}, "inputs[3] holds a lone surrogate"),
        (["a"], {"input": "b"}, "input is not a parameter"),
    ],
)
def test_invalid_input_is_refused_before_a_connection_is_opened(
    call: str, inputs: Any, params: dict[str, Any], says: str,
    small_pool: LLMPool, llm_provider: ScriptedProvider,
) -> None:  # fmt: skip
    with pytest.raises(InvalidParameter) as caught:
        embed(call, small_pool, inputs, **params)
    assert says in str(caught.value)
    assert llm_provider.connections_accepted == 0


@EMBED
def test_a_provider_without_embeddings_says_what_to_do(
    call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    with pytest.raises(InvalidRequest, match="'anthropic' has no embeddings; add a pool"):
        embed(call, configure(llm_provider, PROVIDER="anthropic", BASE_URL=llm_provider.anthropic_url), "a")
    assert llm_provider.connections_accepted == 0


@EMBED
def test_an_invalid_answer_is_an_error_without_the_key(
    call: str, secret: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.body(f"your key {secret}".encode())
    with pytest.raises(InvalidResponse) as caught:
        embed(call, configure(llm_provider), "a")
    assert secret not in str(caught.value)
    assert "***" in str(caught.value)


async def hook(message: Any) -> None:
    """An event hook."""
