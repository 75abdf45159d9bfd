from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.providers.results import Completion, Timing, ToolCall
from llm_pool.providers.usage import Usage
from tests.providers.openai_stream import openai

OK = Head(200, httpx.Headers({"X-Request-Id": "req_1", "content-type": "application/json"}))

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi 😀"}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


# What is sent.


def test_a_string_is_one_user_message_and_parameters_go_into_the_body_unchanged() -> None:
    path, body = openai.completion_request("Hi", "gpt-4o", {"temperature": 0, "x_new": [1]}, stream=False)
    assert path == "/chat/completions"
    assert body == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0,
        "x_new": [1],
    }


def test_a_model_in_the_call_replaces_the_settings_model_and_none_is_left_out() -> None:
    assert openai.completion_request("Hi", "a", {"model": "b"}, stream=False).body["model"] == "b"
    assert "model" not in openai.completion_request("Hi", None, {}, stream=False).body


def test_a_stream_asks_for_usage_unless_stream_options_are_given() -> None:
    def options(**params: Any) -> Any:
        body = openai.completion_request("Hi", "m", params, stream=True).body
        assert body["stream"] is True
        return body.get("stream_options", "none")

    assert options() == {"include_usage": True}
    assert options(stream_options={"include_usage": False}) == {"include_usage": False}
    assert options(stream_options=None) == "none"


def test_the_callers_parameters_are_left_as_they_are() -> None:
    params: dict[str, Any] = {"stream_options": None}
    messages = [{"role": "user", "content": "x"}]
    openai.completion_request(messages, "m", params, stream=True)
    assert params == {"stream_options": None}
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages is empty"),
        (None, "messages is None"),
        (b"Hi", "messages is a bytes"),
        (7, "messages is an int"),
        ({"role": "user", "content": "x"}, "is one dict; put it into a list"),
        (["Hi"], r"messages\[0\] is a str"),
        ([{"role": "user", "content": "x"}, None], r"messages\[1\] is None"),
        ([{"content": "x"}], r'messages\[0\]\["role"\] is missing'),
        ([{"role": 5}], r'messages\[0\]\["role"\] is an int'),
        ([{"role": "user", "content": b"x"}], r'messages\[0\]\["content"\] is a bytes'),
        ([{"role": "user", "content": {"a": 1}}], r'messages\[0\]\["content"\] is a dict'),
        ((m for m in [{"role": "user"}]), "messages is a generator"),
        ([Completion("x")], r"messages\[0\] is a Completion; give completion\.message"),
    ],
)
def test_messages_of_the_wrong_shape_are_refused_with_their_path(messages: Any, expected: str) -> None:
    with pytest.raises(exceptions.InvalidMessages, match=expected) as caught:
        openai.completion_request(messages, "m", {}, stream=False)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, httpx.LocalProtocolError)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": None, "tool_calls": [{}]}],
        [{"role": "assistant", "tool_calls": [{}]}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        ({"role": "developer", "content": "x", "anything": 1},),
    ],
)
def test_messages_that_the_api_may_accept_are_sent(messages: Any) -> None:
    assert openai.completion_request(messages, "m", {}, stream=False).body["messages"] == list(messages)


def test_a_parameter_that_contradicts_the_call_is_refused() -> None:
    with pytest.raises(exceptions.InvalidParameter, match=r"use stream\(\) or astream\(\)"):
        openai.completion_request("Hi", "m", {"stream": True}, stream=False)
    with pytest.raises(exceptions.InvalidParameter, match=r"use complete\(\) or acomplete\(\)"):
        openai.completion_request("Hi", "m", {"stream": False}, stream=True)
    with pytest.raises(exceptions.InvalidParameter, match="messages is given twice"):
        openai.completion_request("Hi", "m", {"messages": []}, stream=False)
    assert openai.completion_request("Hi", "m", {"stream": True}, stream=True).body["stream"] is True


@pytest.mark.parametrize(
    ("provider", "needed"), [("openai", {}), ("openai-responses", {}), ("anthropic", {"max_tokens": 9})]
)
@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"timeout": 5}, r"timeout is not a parameter of the API; use with_options\(timeout=\.\.\.\)"),
        ({"headers": {"x-a": "b"}}, r"use with_options\(headers="),
        ({"query": {"a": "b"}}, r"use with_options\(query="),
        ({"idempotency_key": "b"}, r"use with_options\(idempotency_key="),
        ({"extra_headers": {"x-a": "b"}}, r"use with_options\(headers="),
        ({"extra_query": {"a": "b"}}, r"use with_options\(query="),
        ({"extra_body": {"top_k": 1}}, "as parameters of their own"),
        ({"max_retries": 0}, "call again"),
    ],
)
def test_an_option_of_a_call_is_refused_as_a_parameter_with_the_alternative(
    provider: str, needed: dict[str, Any], option: dict[str, Any], instead: str
) -> None:
    with pytest.raises(exceptions.InvalidParameter, match=instead) as caught:
        PROVIDERS[provider]().completion_request("Hi", "m", {**needed, **option}, stream=False)
    assert str(caught.value).startswith(*option)


def test_a_body_is_compact_json_in_utf8() -> None:
    assert openai.encode({"a": "é😀\u2028", "b": [1, None]}) == '{"a":"é😀\u2028","b":[1,null]}'.encode()


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (
            {"messages": [{}, {"content": "a\ud83d"}]},
            "InvalidMessages",
            r'messages\[1\]\["content"\] holds a lone',
        ),
        (
            {"messages": [{"content": [{"text": "\udc00"}]}]},
            "InvalidMessages",
            r'\["content"\]\[0\]\["text"\] hol',
        ),
        ({"messages": [{"\ud800": 1}]}, "InvalidMessages", r"messages\[0\]\[.* holds a lone"),
        ({"user": "\ud800"}, "InvalidParameter", r"user holds a lone surrogate \(U\+D800 at index 0\)"),
        ({"temperature": float("nan")}, "InvalidParameter", "temperature is nan"),
        ({"a": {"b": [float("inf")]}}, "InvalidParameter", r'a\["b"\]\[0\] is inf'),
        ({"when": datetime(2026, 1, 1, tzinfo=UTC)}, "InvalidParameter", "when is a datetime"),
        ({"messages": [{"content": ["x", b"y"]}]}, "InvalidMessages", r'\["content"\]\[1\] is a bytes'),
        ({"stop": {"a", "b"}}, "InvalidParameter", "stop is a set"),
        ({"a": {(1, 2): 3}}, "InvalidParameter", "cannot be written as JSON: keys must be"),
        ({"a": {(b"x", 1): float("nan")}}, "InvalidParameter", r"a\[\(b'x', 1\)\] is nan"),
        ({"a": {True: [b"x"]}}, "InvalidParameter", r"a\[True\]\[0\] is a bytes"),
    ],
)
def test_a_value_that_json_cannot_carry_is_refused_with_its_path(body: Any, kind: str, expected: str) -> None:
    with pytest.raises(exceptions.InvalidRequest, match=expected) as caught:
        openai.encode(body)
    assert type(caught.value).__name__ == kind
    str(caught.value).encode()  # the error itself can be logged


def test_a_cyclic_or_too_deep_body_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(exceptions.InvalidParameter, match="or contains itself"):
            openai.encode({"x": value})


def test_the_key_is_sent_only_if_there_is_one() -> None:
    assert openai.headers("k")["authorization"] == "Bearer k"
    assert "authorization" not in openai.headers(None)


# Responses without a stream.


def test_a_completion_is_read() -> None:
    timing = Timing(total=1.0)
    completion = openai.parse_completion(OK, json.dumps(ANSWER).encode(), timing)
    assert completion == Completion(
        text="Hi 😀",
        model="gpt-4o-2024",
        finish_reason="stop",
        usage=Usage(3, 2),
        request_id="req_1",
        timing=timing,
    )
    assert completion.raw == ANSWER


def with_message(**message: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def test_tool_calls_are_read() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": {"y": 2}}},
        {"id": "c", "type": "custom", "custom": {"name": "h", "input": "free"}},
    ]
    completion = openai.parse_completion(OK, with_message(content=None, tool_calls=calls))
    assert completion.text == ""
    assert completion.tool_calls == (
        ToolCall("a", "f", '{"x": 1}'),
        ToolCall("b", "g", '{"y": 2}'),
        ToolCall("c", "h", "free"),
    )
    assert completion.usage is None


def test_content_in_parts_is_joined_and_surrogates_are_repaired() -> None:
    parts = [
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert openai.parse_completion(OK, with_message(content=parts)).text == "ab"
    body = b'{"choices":[{"message":{"content":"\\ud83d\\ude00 \\ud83d"}}]}'
    assert openai.parse_completion(OK, body).text == "😀 \ufffd"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "with an empty body"),
        (b" \n", "with an empty body"),
        (b"<html><style>p{}</style><body><h1>It works!</h1></body>", "HTML that says 'It works!'"),
        (b"OK", "what is not JSON: OK"),
        (b'{"choices": [', "what is not JSON"),
        (b"\xff\xfe\xfd", "what is not JSON"),
        (b"[" * 100_000, "what is not JSON"),
        (b'{"choices": []}', "an empty list of choices"),
        (b"{}", "no choices"),
        (b"null", "None instead of an object"),
        (b"[1]", "a list instead of an object"),
        (b'"text"', "a str instead of an object"),
        (b'{"choices": null}', "an empty list of choices"),
        (b'{"choices": {"a": 1}}', "choices of an unexpected shape"),
        (b'{"choices": [1]}', "choices of an unexpected shape"),
        (b'{"choices": [{}]}', "choices of an unexpected shape"),
        (b'{"choices": [{"message": null}]}', "choices of an unexpected shape"),
        (b'{"choices": [{"message": {"content": 5}}]}', "choices of an unexpected shape"),
        (b'{"choices": [{"message": {"tool_calls": [5]}}]}', "choices of an unexpected shape"),
    ],
)
def test_a_body_that_is_not_a_completion_is_an_invalid_response(body: bytes, expected: str) -> None:
    with pytest.raises(exceptions.InvalidResponse, match=expected) as caught:
        openai.parse_completion(OK, body)
    error = caught.value
    assert (error.status_code, error.request_id, error.content_type) == (200, "req_1", "application/json")
    assert str(error).startswith("openai answered 200 (request req_1) with ")
    assert len(str(error)) < 600


def test_an_error_object_in_a_200_is_an_api_error() -> None:
    body = {"error": {"message": "Model is loading", "type": "server_error", "code": 1}}
    with pytest.raises(exceptions.APIError, match="Model is loading") as caught:
        openai.parse_completion(OK, json.dumps(body).encode())
    error = caught.value
    assert type(error) is exceptions.ServerFailed
    assert (error.status_code, error.code, error.type, error.request_id) == (200, 1, "server_error", "req_1")
    assert error.body == body
