"""Azure OpenAI: deployments in the path, api-version in the query, keys and tokens, filtered answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool import exceptions
from llm_pool.providers.azure import Azure
from testbed.behaviours import respond
from testbed.provider import vector
from tests.fixtures.calls import CALLS, STREAMS, ask, hook_into

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider

VERSION = "api-version=2024-10-21"
TOKEN = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"


@pytest.fixture
def azure(configure: Callable[..., LLMPool], llm_provider: ScriptedProvider) -> Callable[..., LLMPool]:
    """``azure("/openai")``: a pool of Azure whose BASE_URL has this path, and "gpt" as its MODEL."""
    llm_provider.reply("Hello")

    def make(path: str = "", **settings: Any) -> LLMPool:
        own = {"PROVIDER": "azure", "MODEL": "gpt", "QUERY": {"api-version": "2024-10-21"}}
        return configure(llm_provider, **{**own, "BASE_URL": f"{llm_provider.url}{path}", **settings})

    return make


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", f"/openai/deployments/gpt/chat/completions?{VERSION}"),
        ("/openai/", f"/openai/deployments/gpt/chat/completions?{VERSION}"),
        ("/gateway", f"/gateway/openai/deployments/gpt/chat/completions?{VERSION}"),
        ("/openai/deployments/mini", f"/openai/deployments/mini/chat/completions?{VERSION}"),
        ("/models", f"/models/chat/completions?{VERSION}"),
    ],
)
def test_the_path_names_the_deployment_once(
    path: str, target: str, hooked: bool, call: str, azure: Any, llm_provider: ScriptedProvider, secret: str
) -> None:
    pool = azure(path)
    if hooked:
        hook_into(pool)
    assert ask(call, pool).text == "Hello"
    [request] = llm_provider.requests
    assert request.target == target
    assert request.headers["api-key"] == secret
    assert "authorization" not in request.headers
    assert request.json()["model"] == "gpt"


def test_a_provider_for_a_url_is_a_copy() -> None:
    """It is of the same class, and the provider that is asked does not change."""

    class Own(Azure):
        pass

    provider = Own()
    own = provider.for_url("https://name.openai.azure.com/openai/v1")
    assert type(own) is Own
    assert (own.models_path, own.required_query) == ("/models", ())
    assert (provider.models_path, len(provider.required_query)) == ("/openai/models", 1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("path", ["/openai/v1", "/openai/v1/"])
def test_the_v1_api_needs_no_version(
    path: str, call: str, azure: Any, llm_provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    ask(call, azure(path, QUERY={}))
    assert llm_provider.requests[0].target == "/openai/v1/chat/completions"


def test_the_environment_says_where_with_what_key_and_version(
    azure: Any, llm_provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"{llm_provider.url}/?a=1")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01")
    azure(BASE_URL=None, API_KEY=None, QUERY={}).complete("hello")
    [request] = llm_provider.requests
    assert request.target == "/openai/deployments/gpt/chat/completions?a=1&api-version=2025-01-01"
    assert request.headers["api-key"] == "azure-key-1"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["fixed", "function", "async function"])
def test_a_token_of_entra_id_is_sent_as_authorization(
    kind: str, call: str, azure: Any, llm_provider: ScriptedProvider
) -> None:
    async def afetch() -> str:
        return TOKEN

    pool = azure(API_KEY={"fixed": TOKEN, "function": lambda: TOKEN, "async function": afetch}[kind])
    ask(call, pool)
    headers = llm_provider.requests[0].headers
    assert (headers["authorization"], headers.get("api-key")) == (f"Bearer {TOKEN}", None)


@pytest.mark.parametrize("call", CALLS)
def test_the_model_of_a_call_is_its_deployment(call: str, azure: Any, llm_provider: ScriptedProvider) -> None:
    ask(call, azure(), model="my model/ä?")
    [request] = llm_provider.requests
    assert request.target == f"/openai/deployments/my%20model%2F%C3%A4%3F/chat/completions?{VERSION}"
    assert request.json()["model"] == "my model/ä?"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (None, "model is missing; give the name of a deployment as model, or set MODEL"),
        (5, "model is an int; give the name of a deployment"),
        ("", "model is ''; give the name of a deployment."),
        ("..", "model is '..'; give the name of a deployment."),
        ("\ud800", "model holds a lone surrogate"),
    ],
)
def test_a_call_without_a_deployment_is_refused(
    model: Any, says: str, call: str, azure: Any, llm_provider: ScriptedProvider
) -> None:
    pool = azure(MODEL=None)
    with pytest.raises(exceptions.InvalidParameter) as caught:
        ask(call, pool, **({} if model is None else {"model": model}))
    assert says in str(caught.value)
    assert llm_provider.connections_accepted == 0


@pytest.mark.parametrize("call", CALLS)
def test_a_base_url_with_a_deployment_needs_no_model(
    call: str, azure: Any, llm_provider: ScriptedProvider
) -> None:
    ask(call, azure("/openai/deployments/mini", MODEL=None))
    assert "model" not in llm_provider.requests[0].json()


@pytest.mark.parametrize("call", ["embed", "aembed"])
def test_embeddings_have_a_deployment_too(call: str, azure: Any, llm_provider: ScriptedProvider) -> None:
    pool = azure()
    pool.complete("hello")
    if call == "embed":
        embeddings = pool.embed(["a", "b"], model="vectors")
    else:
        embeddings = asyncio.run(pool.aembed(["a", "b"], model="vectors"))
    assert embeddings.vectors == [vector("a"), vector("b")]
    assert llm_provider.requests[-1].target == f"/openai/deployments/vectors/embeddings?{VERSION}"


def test_other_endpoints_get_the_key_and_the_version(azure: Any, llm_provider: ScriptedProvider) -> None:
    pool = azure()
    pool.request("GET", "openai/models")
    asyncio.run(pool.arequest("GET", "/openai/models"))
    pool.client.get("openai/models", params={"api-version": "preview"})
    asyncio.run(pool.aclient.get("openai/models"))
    targets = [request.target for request in llm_provider.requests]
    assert targets == [f"/openai/models?{VERSION}"] * 2 + [
        "/openai/models?api-version=preview",
        f"/openai/models?{VERSION}",
    ]
    assert all("api-key" in request.headers for request in llm_provider.requests)


@pytest.mark.parametrize("call", STREAMS)
def test_events_of_the_filter_are_no_error(call: str, azure: Any, llm_provider: ScriptedProvider) -> None:
    pool = azure()
    ask(call, pool)
    llm_provider.stream(["Hel", "lo"], quirk="filter-events")
    completion = ask(call, pool)
    assert (completion.text, completion.finish_reason) == ("Hello", "stop")
    assert completion.raw["prompt_filter_results"]


@pytest.mark.parametrize("call", CALLS)
def test_a_filtered_answer_is_a_completion(call: str, azure: Any, llm_provider: ScriptedProvider) -> None:
    pool = azure()
    ask(call, pool)
    llm_provider.reply("", quirk="filtered-without-message")
    completion = ask(call, pool)
    assert (completion.text, completion.finish_reason) == ("", "content_filter")


def test_an_error_has_azures_request_id(azure: Any, llm_provider: ScriptedProvider, secret: str) -> None:
    pool = azure()
    pool.complete("hello")
    body = f'{{"error": {{"code": "DeploymentNotFound", "message": "No deployment ({secret})."}}}}'
    llm_provider.play(respond(404, body.encode(), {"apim-request-id": "apim-7"}))
    with pytest.raises(exceptions.NotFound, match=r"azure answered 404 .*No deployment \(\*\*\*\)") as caught:
        pool.complete("hello")
    assert (caught.value.request_id, caught.value.code) == ("apim-7", "DeploymentNotFound")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", f"/openai/models?{VERSION}"),
        ("/openai", f"/openai/models?{VERSION}"),
        ("/openai/v1", f"/openai/v1/models?{VERSION}"),
    ],
)
def test_the_check_lists_models_but_not_deployments(
    path: str, target: str, azure: Any, llm_provider: ScriptedProvider
) -> None:
    """MODEL is a deployment, and Azure's list has the names of models."""
    report = azure(path, MODEL="my-deployment").check()
    assert {request.target for request in llm_provider.requests} == {target}
    codes = {finding.code for step in report.steps for finding in step.findings}
    assert "auth.accepted" in codes
    assert "auth.model_unlisted" not in codes
