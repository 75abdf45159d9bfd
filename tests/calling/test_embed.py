"""``embed`` and ``aembed``: one request or several, in order, and what remains if one fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.exceptions import InvalidParameter, InvalidRequest, InvalidResponse, RateLimited
from llm_pool.providers.openai import OpenAI
from llm_pool.providers.results import Usage
from testbed.behaviours import json_reply, reply, steps
from testbed.embeddings import embeddings, vector_of
from tests.fixtures.callers import gated

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import CallRecord
    from llm_pool.providers.results import Embeddings
    from testbed import ScriptedServer


class Small(OpenAI):
    """A server that accepts two texts in a request."""

    max_embedding_inputs = 2


SMALL = f"{__name__}.Small"
EMBED = pytest.mark.parametrize("call", ["embed", "aembed"])


def embed(call: str, pool: LLMPool, inputs: Any, **params: Any) -> Embeddings:
    return pool.embed(inputs, **params) if call == "embed" else asyncio.run(pool.aembed(inputs, **params))


@EMBED
@pytest.mark.parametrize("way", ["direct", "through event hooks"])
def test_a_call_is_one_post_and_returns_a_vector_for_each_text(
    way: str, call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer],
    records: list[CallRecord],
) -> None:  # fmt: skip
    server = serve(embeddings)
    pool = configure(server)
    if way != "direct":
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [hook]}
    found = embed(call, pool, ["one", "three"], dimensions=3)
    assert found.vectors == [vector_of("one"), vector_of("three")]
    assert (found.model, found.usage, found.request_id) == ("test-embedder", Usage(2, 0), "1")
    assert found.headers["X-Request-Id"] == "1"
    assert found.timing is not None
    assert found.timing.total > 0
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/embeddings")
    body = {"model": "test-model", "input": ["one", "three"], "dimensions": 3, "encoding_format": "base64"}
    assert request.json() == body
    (record,) = records
    assert (record.operation, record.model, record.error, record.status_code) == (
        "embed",
        "test-model",
        None,
        200,
    )
    assert record.usage == Usage(2, 0)
    assert pool.stats().input_tokens == 2


@EMBED
def test_a_str_is_one_text(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    found = embed(call, configure(serve(embeddings)), "Hé!", model="other", encoding_format="float")
    assert found.vectors == [vector_of("Hé!")]


@EMBED
def test_too_many_texts_go_out_in_several_requests_and_come_back_in_order(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer],
    records: list[CallRecord],
) -> None:  # fmt: skip
    server = serve(embeddings)
    found = embed(call, configure(server, PROVIDER=SMALL), ["a", "b", "c", "d", "e"])
    assert [request.json()["input"] for request in server.requests] == [["a", "b"], ["c", "d"], ["e"]]
    assert found.vectors == [vector_of(text) for text in "abcde"]
    assert found.usage == Usage(5, 0)
    assert found.request_id == "3"
    assert [record.usage for record in records] == [Usage(2, 0), Usage(2, 0), Usage(1, 0)]
    assert found.timing is not None
    assert records[0].timing.total < found.timing.total <= sum(record.timing.total for record in records)
    assert server.connections_accepted == 1


@EMBED
def test_the_error_of_one_request_ends_the_call(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer],
    records: list[CallRecord],
) -> None:  # fmt: skip
    server = serve(steps(embeddings, json_reply({"error": {"message": "slow"}}, status=429)))
    with pytest.raises(RateLimited):
        embed(call, configure(server, PROVIDER=SMALL), ["a", "b", "c", "d", "e"])
    assert [record.error for record in records] == [None, "RateLimited"]
    assert len(server.requests) == 2


async def test_a_cancelled_call_sends_no_more(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer], records: list[CallRecord]
) -> None:
    server = serve(steps(embeddings, gated()))
    task = asyncio.create_task(configure(server, PROVIDER=SMALL).aembed(["a", "b", "c", "d", "e"]))
    await server.await_requests(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.error for record in records] == [None, "CancelledError"]
    assert len(server.requests) == 2


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
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer],
) -> None:  # fmt: skip
    server = serve(embeddings)
    with pytest.raises(InvalidParameter) as caught:
        embed(call, configure(server, PROVIDER=SMALL), inputs, **params)
    assert says in str(caught.value)
    assert server.connections_accepted == 0


@EMBED
def test_a_provider_without_embeddings_says_what_to_do(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(embeddings)
    with pytest.raises(InvalidRequest, match=r"'anthropic' has no embeddings\. Add a pool"):
        embed(call, configure(server, PROVIDER="anthropic"), "a")
    assert server.connections_accepted == 0


@EMBED
def test_an_invalid_answer_is_an_error_without_the_key(
    call: str, secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(reply(200, f"your key {secret}".encode()))
    with pytest.raises(InvalidResponse) as caught:
        embed(call, configure(server), "a")
    assert secret not in str(caught.value)
    assert "***" in str(caught.value)


async def hook(message: Any) -> None:
    """An event hook."""
