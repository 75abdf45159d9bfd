"""OpenAI's Responses API: requests, whole answers, and the turn to send back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers.openai import OpenAI
from tests.providers.responses_events import HEAD, api, call, message, parse, reasoning, response

HI = {"role": "user", "content": "Hi"}


def body_of(messages: Any = "Hi", *, stream: bool = False, **params: Any) -> Any:
    request = api.completion_request(messages, "m", params, stream=stream)
    assert request.path == "/responses"
    return json.loads(api.encode(request.body))


# Requests.


def test_messages_become_the_input_and_parameters_stay_as_they_are() -> None:
    params = {
        "instructions": "Be short.",
        "store": False,
        "reasoning": {"effort": "low"},
        "max_output_tokens": 9,
    }
    assert body_of(**params) == {"model": "m", "input": [HI], **params}
    assert body_of([HI], stream=True, model="other") == {"model": "other", "input": [HI], "stream": True}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call_output", "call_id": "c", "output": "21"},
        {"type": "item_reference", "id": "msg"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "reasoning", "id": "rs", "summary": [], "role": None},
    ],
)
def test_an_item_with_a_type_needs_no_role(item: dict[str, Any]) -> None:
    assert body_of([HI, item])["input"] == [HI, item]


@pytest.mark.parametrize(
    "item", [{}, {"type": None}, {"type": 1}, {"content": "x"}, {"type": "message", "role": 1}]
)
def test_a_dict_without_role_and_type_is_refused_with_its_place(item: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidMessages, match=r'messages\[1\]\["role"\]'):
        body_of([HI, item])


def test_chat_completions_still_need_a_role() -> None:
    with pytest.raises(exceptions.InvalidMessages, match=r'messages\[0\]\["role"\] is missing'):
        OpenAI().completion_request([{"type": "function_call_output"}], "m", {}, stream=False)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("max_completion_tokens", "max_output_tokens"),
        ("max_tokens", "max_output_tokens"),
        ("reasoning_effort", 'reasoning={"effort": ...}'),
        ("response_format", 'text={"format": ...}'),
        ("input", "the first argument"),
    ],
)
def test_a_parameter_of_chat_completions_is_told_its_name_here(name: str, instead: str) -> None:
    with pytest.raises(exceptions.InvalidParameter, match=name) as caught:
        body_of(**{name: 9})
    assert instead in str(caught.value)


def test_a_value_that_cannot_be_sent_is_told_with_its_place() -> None:
    with pytest.raises(exceptions.InvalidMessages, match=r'input\[0\]\["content"\] holds a lone surrogate'):
        body_of("a\ud800")
    with pytest.raises(exceptions.InvalidParameter, match=r'metadata\["x"\] is an object'):
        body_of(metadata={"x": object()})


# Answers.


def test_the_text_is_that_of_all_messages() -> None:
    answer = response(message("Let me see."), {"type": "web_search_call", "id": "ws"}, message(" Found."))
    completion = parse(answer)
    assert (completion.text, completion.model, completion.finish_reason) == (
        "Let me see. Found.",
        "m",
        "completed",
    )
    assert completion.request_id == "req_1"
    assert completion.raw == answer


def test_the_calls_of_the_users_tools_are_tool_calls() -> None:
    custom = {"type": "custom_tool_call", "id": "ct", "call_id": "c2", "name": "g", "input": "free text"}
    builtin = [
        {"type": "mcp_call", "id": "m", "name": "h", "arguments": "{}"},
        {"type": "shell_call", "call_id": "s"},
    ]
    found = parse(response(call(), *builtin, custom, call("", 3), call(number=4, call_id=None))).tool_calls
    assert [(each.id, each.name, each.arguments) for each in found] == [
        ("call1", "f", '{"x": 1}'), ("c2", "g", "free text"), ("call3", "f", "{}"), ("fc4", "f", '{"x": 1}')
    ]  # fmt: skip
    assert found[1].raw == custom


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete"}, "incomplete"),
        ({"status": "incomplete", "incomplete_details": "x"}, "incomplete"),
        ({"status": "queued"}, "queued"),
        ({"status": None}, None),
    ],
)
def test_the_finish_reason_is_the_status_or_the_reason_of_an_incomplete_answer(
    fields: dict[str, Any], expected: str | None
) -> None:
    assert parse(response(message(), **fields)).finish_reason == expected


def test_the_reasoning_is_the_summary_or_the_text_itself_with_a_paragraph_for_each_part() -> None:
    content = [{"type": "reasoning_text", "text": "raw"}]
    assert (
        parse(response(reasoning("A", "", "B"), reasoning("C", content=content))).reasoning == "A\n\nB\n\nC"
    )
    assert parse(response(reasoning(content=content), reasoning(""))).reasoning == "raw"


def test_a_content_that_is_a_text_is_read() -> None:
    assert parse(response({"type": "message", "role": "assistant", "content": "Hello"})).text == "Hello"


@pytest.mark.parametrize(
    "wrong",
    [
        {"summary": 5, "content": "x"},
        {"summary": [5, {"text": 5}, {"text": None}]},
        {"summary": None, "content": None},
        {"content": {"a": 1}},
    ],
)
def test_a_reasoning_of_the_wrong_type_is_read_as_none(wrong: dict[str, Any]) -> None:
    assert parse(response({"type": "reasoning", **wrong}, message())).reasoning in ("", "x")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"object": "response"},
        {"output": 5},
        {"output": ["x"]},
        {"output": {"a": 1}},
        response(message(text=5)),  # type: ignore[arg-type]
        {"choices": [{"message": {"content": "x"}}]},
    ],
)
def test_an_answer_of_another_shape_is_an_invalid_response(answer: Any) -> None:
    with pytest.raises(exceptions.InvalidResponse, match="openai-responses answered 200"):
        parse(answer)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            {"code": "rate_limit_exceeded", "message": "Try again in 20s."},
            exceptions.RateLimited,
            "Try again in 20",
        ),
        ({"code": "server_error", "message": "Oops"}, exceptions.ServerFailed, "Oops"),
        ({"code": "invalid_prompt", "message": "No"}, exceptions.BadRequest, "No"),
        (None, exceptions.APIError, "'failed'"),
    ],
)
def test_a_response_that_failed_is_an_error_without_its_instructions(
    error: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(exceptions.APIError, match=words) as caught:
        parse(response(status="failed", error=error))
    assert type(caught.value) is kind
    assert "secret" not in f"{caught.value}{caught.value.body}"


@pytest.mark.parametrize("missing", ["object", "output"])
def test_a_response_that_lacks_its_name_or_its_output_is_an_error_without_its_instructions(
    missing: str,
) -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "Oops"})
    del failed[missing]
    with pytest.raises(exceptions.ServerFailed, match="Oops") as caught:
        parse(failed)
    assert "secret" not in f"{caught.value}{caught.value.body}"


def test_a_cancelled_response_is_an_error() -> None:
    with pytest.raises(exceptions.APIError, match="cancelled"):
        parse(response(message(), status="cancelled"))


# The turn to send back.


def test_a_turn_is_sent_back_as_all_its_items() -> None:
    answer = response(
        reasoning("2+2", encrypted_content="XYZ"),
        {
            "type": "web_search_call",
            "id": "ws",
            "status": "completed",
            "action": {"type": "search", "query": None},
        },
        message("4", annotations=[{"type": "url_citation", "url": "u"}]),
        call(),
    )
    result = {"type": "function_call_output", "call_id": "call1", "output": "21"}
    turn = json.loads(json.dumps(parse(answer).message))
    assert body_of([HI, turn, result])["input"] == [HI, *answer["output"], result]


def test_fields_that_a_request_must_not_have_are_not_sent_back() -> None:
    sent = parse(
        response(
            reasoning(content=None, encrypted_content=None, status="completed"),
            message(logprobs=None),
            call(namespace=None),
        )
    ).message["output"]
    assert sent == [
        reasoning(),
        {**message(), "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
        call(),
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "code_interpreter_call", "id": "ci", "container_id": "c", "code": None, "outputs": None},
        {"type": "image_generation_call", "id": "ig", "status": "failed", "result": None},
    ],
)
def test_null_fields_that_a_request_must_have_are_sent_back(item: dict[str, Any]) -> None:
    """Servers that check requests answer otherwise: "outputs: Field required" (openai/codex#8829)."""
    assert parse(response({**item, "other": None})).message["output"] == [item]


def test_the_message_of_another_provider_is_sent_as_it_is() -> None:
    turn = {"role": "assistant", "content": "4", "output": "x"}
    assert body_of([turn])["input"] == [turn]


def test_the_head_is_read_as_that_of_chat_completions() -> None:
    assert api.headers("k")["authorization"] == "Bearer k"
    assert api.request_id(HEAD) == "req_1"
