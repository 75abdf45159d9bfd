"""OpenAI's Responses API over real connections, by each kind of call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from llm_pool import exceptions, tools
from testbed.behaviours import hold
from testbed.provider import Citation, ToolCall
from tests.fixtures.calls import CALLS, STREAMS, WHOLE, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider


@pytest.fixture
def pool(llm_provider: ScriptedProvider, configure: Callable[..., LLMPool]) -> LLMPool:
    return configure(llm_provider, **llm_provider.settings("openai-responses"))


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_returned_on_one_connection(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.stream(
        ["Hel", "lo"],
        reasoning=["2", "+2"],
        citations=["https://a.test"],
        logprobs=[-0.1, -0.2],
        usage=(9, 7, 4, 5),
    )
    for _ in range(2):
        completion = ask(call, pool, max_output_tokens=9)
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("Hello", "2+2", "completed")
    assert completion.model == "test-model"
    assert [citation.url for citation in completion.citations] == ["https://a.test"]
    assert [each["logprob"] for each in completion.logprobs] == [-0.1, -0.2]
    assert completion.usage is not None
    assert (completion.usage.cached_tokens, completion.usage.reasoning_tokens) == (4, 5)
    assert completion.request_id == "req_2"
    assert llm_provider.connections_accepted == 1
    request = llm_provider.requests[0]
    assert (request.path, request.headers["authorization"]) == ("/v1/responses", "Bearer sk-test-0123456789")
    stream = {"stream": True} if call in STREAMS else {}
    hello = [{"role": "user", "content": "hello"}]
    assert request.json() == {"model": "test-model", "input": hello, "max_output_tokens": 9, **stream}


@pytest.mark.parametrize("quirk", [(), "no-final-output"])
@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_is_the_answer_that_it_is_without_a_stream(
    call: str, quirk: Any, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    script: dict[str, Any] = {
        "reasoning": ["2", "+2"],
        "redacted_reasoning": "XYZ",
        "citations": [Citation("https://a.test")],
        "refusal": ["I ", "cannot."],
        "tool_calls": [ToolCall("weather", {"city": "Rome"}), ToolCall("clock", "")],
    }
    llm_provider.stream(["Hel", "lo"], **script)
    llm_provider.stream(["Hel", "lo"], quirk=quirk, **script)
    whole, streamed = ask("complete", pool), ask(call, pool)
    assert streamed.raw == {**whole.raw, "id": "resp_2"}
    assert streamed.message == whole.message
    assert streamed.refusal == "I cannot."
    assert [(each.id, each.name, each.arguments) for each in streamed.tool_calls] == [
        ("call_1", "weather", '{"city": "Rome"}'), ("call_2", "clock", "{}")
    ]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_turn_goes_back_with_the_results_of_its_tools(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.tool_call("weather", {"city": "Rome"}, text="Let me see.", redacted_reasoning="XYZ")
    llm_provider.reply("Sunny.")
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Rome?"}]
    turn = ask(call, pool, messages)
    result = {"type": "function_call_output", "call_id": turn.tool_calls[0].id, "output": "sunny"}
    messages += [json.loads(json.dumps(turn.message)), result]
    assert ask(call, pool, messages).text == "Sunny."
    question, reasoning, *items = llm_provider.requests[1].json()["input"]
    assert question == {"role": "user", "content": "Rome?"}
    assert reasoning == {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "XYZ"}
    assert items == [*turn.raw["output"][1:], result]
    assert (
        ask(call, pool, [result], previous_response_id=turn.raw["id"]).raw["previous_response_id"] == "resp_1"
    )
    assert llm_provider.requests[2].json()["input"] == [result]


class Weather(BaseModel):
    city: str
    unit: str = "C"


@pytest.mark.parametrize("call", CALLS)
def test_the_answer_is_a_value_of_a_type(call: str, pool: LLMPool, llm_provider: ScriptedProvider) -> None:
    llm_provider.reply('{"city": "Rome", "unit": "F"}')
    completion = ask(call, pool, response_format=Weather, text={"verbosity": "low"})
    assert completion.parsed == Weather(city="Rome", unit="F")
    body = llm_provider.requests[0].json()
    sent = body["text"].pop("format")
    assert (body["text"], "response_format" in body) == ({"verbosity": "low"}, False)
    assert (sent["type"], sent["name"], sent["strict"]) == ("json_schema", "Weather", True)
    assert sent["schema"]["required"] == ["city", "unit"]
    with pytest.raises(exceptions.InvalidParameter, match=r"text\['format'\] contradicts response_format"):
        ask(call, pool, response_format=Weather, text={"format": {"type": "text"}})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"finish_reason": "length"}, r"The answer was cut \(finish_reason 'max_output_tokens'\)"),
        ({"finish_reason": "content_filter"}, "The model refused to answer"),
        ({"refusal": "I cannot."}, "The model refused to answer"),
    ],
)
def test_an_answer_that_is_no_value_of_its_type_says_why(
    options: Any, says: str, call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply("", **options)
    with pytest.raises(exceptions.InvalidOutput, match=says):
        ask(call, pool, response_format=Weather)


def temperature(city: str, unit: str = "C") -> str:
    """Return the temperature in a city now."""
    return f"21 {unit} in {city}"


@pytest.mark.parametrize("call", CALLS)
def test_functions_are_tools_whose_parameters_with_a_default_stay_optional(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    search = {"type": "web_search"}
    llm_provider.tool_call("temperature", {"city": "Rome"})
    [asked] = ask(call, pool, tools=[temperature, search]).tool_calls
    assert tools.call(temperature, asked) == "21 C in Rome"
    sent, beside = llm_provider.requests[0].json()["tools"]
    assert (sent, beside) == (tools.schema(temperature, "openai-responses"), search)
    parameters = sent.pop("parameters")
    description = "Return the temperature in a city now."
    # Without "strict" the API makes functions strict, and all their parameters required.
    assert sent == {"type": "function", "name": "temperature", "description": description, "strict": False}
    assert (list(parameters["properties"]), parameters["required"]) == (["city", "unit"], ["city"])


def test_embeddings_are_those_of_openai(pool: LLMPool, llm_provider: ScriptedProvider) -> None:
    llm_provider.vectors([0.5], [0.25])
    assert pool.embed(["a", "b"]).vectors == [[0.5], [0.25]]
    assert llm_provider.requests[0].path == "/v1/embeddings"
    with pytest.raises(exceptions.InvalidParameter, match=r"inputs\[1\] holds a lone surrogate"):
        pool.embed(["a", "\ud83d"])


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("call", CALLS)
def test_an_incomplete_answer_is_an_answer(
    call: str, reason: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply("Hello", finish_reason=reason)
    completion = ask(call, pool)
    expected = "max_output_tokens" if reason == "length" else "content_filter"
    assert (completion.text, completion.finish_reason) == ("Hello", expected)


@pytest.mark.parametrize("call", CALLS)
def test_an_error_has_the_class_of_its_status(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.fail(429, retry_after=3)
    with pytest.raises(exceptions.RateLimited, match="openai-responses answered 429") as caught:
        ask(call, pool)
    assert caught.value.retry_after == 3


@pytest.mark.parametrize("call", WHOLE)
def test_a_response_that_failed_is_an_error(call: str, pool: LLMPool, llm_provider: ScriptedProvider) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 20s."}
    llm_provider.body(
        {"object": "response", "status": "failed", "error": error, "instructions": "x", "output": []}
    )
    with pytest.raises(exceptions.RateLimited) as caught:
        ask(call, pool)
    assert (caught.value.retry_after, caught.value.body) == (20.0, error)


@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_without_its_last_event_is_interrupted(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.cut_after(2)
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        ask(call, pool)
    assert caught.value.partial == "1 2 "


@pytest.mark.parametrize("call", STREAMS)
def test_done_before_the_last_event_interrupts_a_stream_whose_connection_stays_open(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    llm_provider.events({"type": "response.output_text.delta", "delta": "Hel"}, b"data: [DONE]\n\n", hold)
    with pytest.raises(exceptions.StreamInterrupted, match="DONE") as caught:
        ask(call, pool)
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize("call", STREAMS)
def test_the_reason_of_a_failure_follows_in_an_event_of_its_own(
    call: str, pool: LLMPool, llm_provider: ScriptedProvider
) -> None:
    """As Azure sends it, with the wait in the headers (earendil-works/pi#7983)."""
    failed = {"type": "response.failed", "response": {"status": "failed", "error": None, "output": []}}
    reason = {"type": "error", "error": {"type": "too_many_requests", "code": "rate_limit_exceeded"}}
    llm_provider.events(failed, reason, hold, headers={"Retry-After": "7"})
    with pytest.raises(exceptions.RateLimited) as caught:
        ask(call, pool)
    assert caught.value.retry_after == 7
