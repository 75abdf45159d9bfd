"""Every dialect of the scripted provider, in each kind of call: the answer is that of the documented API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool import exceptions
from testbed.provider import QUIRKS, ToolCall
from tests.fixtures.calls import STREAMS, WHOLE, ask

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.providers.results import Completion
    from testbed.provider import ScriptedProvider

APIS: dict[str, tuple[str, ...]] = {
    "chat completions": ("openai",),
    "messages": ("anthropic",),
    "responses": ("openai-responses",),
    "embeddings": (),
    "": ("openai", "anthropic", "openai-responses"),
}
TOOLS = [ToolCall("weather", {"city": "Rome"}), ToolCall("clock", {"zone": "UTC"})]
# Quirks with errors, and those of answers that differ from the one of the documented API.
ERRORS = [name for name in QUIRKS if name.startswith("error-")]
SPECIAL = {
    "broken-utf-8",
    "data-twice",
    "filtered-without-message",
    "json-then-done",
    "spliced",
    "wait-in-message",
    *ERRORS,
}


@pytest.fixture
def provider(llm_provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> ScriptedProvider:
    monkeypatch.setattr("llm_pool.calling.stream.USAGE_SECONDS", 0.05)
    return llm_provider


@pytest.fixture
def pool_of(provider: ScriptedProvider, configure: Callable[..., LLMPool]) -> Callable[[str], LLMPool]:
    return lambda name: configure(provider, **provider.settings(name))


def cases(names: Iterable[str]) -> list[Any]:
    """Return each quirk, with each API and each kind of call that has it."""
    return [
        pytest.param(name, api, call, id=f"{name}-{api}-{call}")
        for name in names
        for api in APIS[QUIRKS[name].api]
        if (name, api) != ("no-done", "openai-responses")  # its last event is the answer itself
        for call in {None: (*WHOLE, *STREAMS), True: STREAMS, False: WHOLE}[QUIRKS[name].stream]
    ]


def script(provider: ScriptedProvider, name: str, quirk: str | tuple[str, ...] = ()) -> None:
    """Script an answer with everything that the dialect ``name`` changes."""
    tools = [ToolCall("clock")] if name in {"tools-without-arguments", "tools-as-object"} else TOOLS
    tools = TOOLS[:1] if name == "function-call" else tools
    has_tools = name.startswith(("tools", "thought", "input", "function"))
    provider.stream(
        ["Let ", "me ", "see."],
        reasoning=["2", "+2"],
        quirk=quirk,
        **({"tool_calls": tools} if has_tools else {}),
        **({"citations": ["https://a.test"]} if name == "perplexity" else {}),
    )


def content(completion: Completion) -> tuple[Any, ...]:
    calls = [(call.name, json.loads(call.arguments)) for call in completion.tool_calls]
    return completion.text, completion.reasoning, calls, completion.citations[:1]


@pytest.mark.parametrize(("name", "api", "call"), cases(name for name in QUIRKS if name not in SPECIAL))
def test_a_dialect_gives_the_same_answer_as_the_documented_api(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    script(provider, name)
    script(provider, name, name)
    plain, completion = ask(call, pool_of(api), **params(api)), ask(call, pool_of(api), **params(api))
    assert content(completion) == content(plain)
    assert completion.text == "Let me see."


def params(api: str) -> dict[str, Any]:
    return {"max_tokens": 9} if api == "anthropic" else {}


@pytest.mark.parametrize(("name", "api", "call"), cases(ERRORS))
def test_an_error_in_any_shape_has_its_class_and_its_words(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    (provider.fail if name == "error-as-events" else provider.fail_in_stream)(
        "overloaded", message="Too many users", quirk=name
    )
    with pytest.raises(exceptions.APIError, match="Too many users") as caught:
        ask(call, pool_of(api), **params(api))
    kind: type[exceptions.APIError] = exceptions.Overloaded
    if call in STREAMS and name in {"error-as-string", "error-as-detail"}:
        kind = exceptions.APIError
    elif call in STREAMS and name == "error-as-google-has-it":
        kind = exceptions.RateLimited
    assert type(caught.value) is kind
    assert "{" not in str(caught.value)


@pytest.mark.parametrize(("name", "api", "call"), cases(["wait-in-message"]))
def test_a_wait_in_words_is_read(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    provider.fail(429, quirk=name)
    with pytest.raises(exceptions.RateLimited) as caught:
        ask(call, pool_of(api), **params(api))
    assert caught.value.retry_after is not None


@pytest.mark.parametrize(("name", "api", "call"), cases(["data-twice", "json-then-done", "spliced"]))
def test_an_answer_that_cannot_be_read_is_an_error(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    script(provider, name, name)
    with pytest.raises(exceptions.InvalidResponse):
        ask(call, pool_of(api), **params(api))


@pytest.mark.parametrize(("name", "api", "call"), cases(["filtered-without-message"]))
def test_a_filtered_answer_has_the_text_before_the_filter(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    script(provider, name, name)
    completion = ask(call, pool_of(api))
    assert (completion.text, completion.finish_reason) == (
        "Let me see." if call in STREAMS else "",
        "content_filter",
    )


@pytest.mark.parametrize(("name", "api", "call"), cases(["broken-utf-8"]))
def test_broken_utf_8_is_replaced(
    name: str, api: str, call: str, provider: ScriptedProvider, pool_of: Callable[[str], LLMPool]
) -> None:
    script(provider, name, name)
    assert "\ufffd" in ask(call, pool_of(api), **params(api)).text
