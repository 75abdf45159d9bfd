from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.providers.errors import retry_after
from llm_pool.providers.openai import OpenAI
from llm_pool.providers.results import Chunk, Completion, Timing, ToolCall, Usage

openai = OpenAI()
OK = Head(200, httpx.Headers({"X-Request-Id": "req_1", "content-type": "application/json"}))
SSE = Head(200, {"x-request-id": "req_1", "content-type": "text/event-stream"})
KEY = "sk-very/secret+key"

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi 😀"}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def delta(content: Any = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    fields = {"content": content, **more} if content is not None else more
    return {"id": "c1", "model": "m1", "choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def sse(*events: Any, done: bool = True) -> bytes:
    lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def read(body: bytes, head: Head = SSE, size: int | None = None) -> tuple[list[Chunk], Completion]:
    reader = openai.stream_reader(head)
    chunks = []
    for start in range(0, len(body), size or len(body) or 1):
        chunks += reader.feed(body[start : start + (size or len(body))])
    chunks += reader.end()
    return chunks, reader.completion()


# --- what is sent


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


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"timeout": 5}, r"TIMEOUTS .* request\(\.\.\., timeout=\.\.\.\)"),
        ({"extra_headers": {"x-a": "b"}}, "HEADERS"),
        ({"extra_query": {"a": "b"}}, "params="),
        ({"extra_body": {"top_k": 1}}, "as parameters of their own"),
        ({"max_retries": 0}, "call again"),
    ],
)
def test_an_option_of_an_sdk_is_refused_with_the_alternative(
    provider: str, option: dict[str, Any], instead: str
) -> None:
    with pytest.raises(exceptions.InvalidParameter, match=instead) as caught:
        PROVIDERS[provider]().completion_request("Hi", "m", {"max_tokens": 9, **option}, stream=False)
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
        with pytest.raises(exceptions.InvalidParameter):
            openai.encode({"x": value})


def test_the_key_is_sent_only_if_there_is_one() -> None:
    assert openai.headers("k")["authorization"] == "Bearer k"
    assert "authorization" not in openai.headers(None)


# --- responses without a stream


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
    assert not isinstance(error, exceptions.APIStatusError)
    assert (error.status_code, error.code, error.type, error.request_id) == (200, 1, "server_error", "req_1")
    assert error.body == body


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "message",
                        "content",
                        "error",
                        "delta",
                        "usage",
                        "tool_calls",
                        "function",
                        "index",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_raises_only_errors_of_this_package(raw: Any) -> None:
    with suppress(exceptions.LLMPoolError):
        repr(openai.parse_completion(OK, json.dumps(raw).encode()))
    wrapped = json.dumps({"choices": [raw]})
    with suppress(exceptions.LLMPoolError):
        repr(openai.parse_completion(OK, wrapped.encode()))
    for event in (json.dumps(raw), wrapped):
        with suppress(exceptions.LLMPoolError):
            repr(read(sse(delta("a"), event, delta("b"))))


# --- streams

STORY = sse(
    delta("", role="assistant"),
    delta("Once "),
    delta("upon 😀\u2028"),
    delta(" a time"),
    delta(reason="stop"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}},
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, None])
def test_a_stream_is_read_in_pieces_of_any_size(size: int | None) -> None:
    chunks, completion = read(STORY, size=size)
    assert "".join(map(str, chunks)) == completion.text == "Once upon 😀\u2028 a time"
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, None, "stop", None]
    assert chunks[1].raw["choices"][0]["delta"]["content"] == "Once "
    assert (completion.model, completion.finish_reason, completion.request_id) == ("m1", "stop", "req_1")
    assert completion.usage == Usage(7, 4)
    assert completion.raw["choices"][0]["message"] == {"role": "assistant", "content": completion.text}
    assert completion.raw["id"] == "c1"


def test_the_reader_is_finished_at_done_and_ignores_the_rest() -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta("a", reason="stop"), done=False))
    assert not reader.finished
    assert reader.feed(b"data: [DONE]\n\ndata: nonsense\n\n") == []
    assert reader.finished
    assert reader.feed(b"data: nonsense\n\n") == []
    assert reader.end() == []
    assert reader.completion(Timing(total=2.0)).timing == Timing(total=2.0)


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"])
def test_a_stream_without_its_last_blank_line_is_complete(end: bytes) -> None:
    assert read(sse(delta("a"), done=False) + end)[1].text == "a"


def test_a_stream_without_done_is_complete_after_a_finish_reason() -> None:
    chunks, completion = read(sse(delta("a"), delta("b", reason="length"), done=False)[:-2])
    assert completion.text == "ab"
    assert completion.finish_reason == "length"
    assert len(chunks) == 2


@pytest.mark.parametrize("rest", [b"", b"data: {", b'data: {"choices": [{"del', b": ping\n\n", b"data: {}\n"])
def test_a_stream_that_ends_early_is_interrupted_and_keeps_its_text(rest: bytes) -> None:
    with pytest.raises(exceptions.StreamInterrupted, match=r"\(request req_1\) was cut short") as caught:
        read(sse(delta("Once "), delta("upon"), done=False) + rest)
    assert caught.value.partial == "Once upon"
    assert caught.value.request_id == "req_1"


def test_a_stream_of_comments_only_is_interrupted() -> None:
    with pytest.raises(exceptions.StreamInterrupted):
        read(b": PROCESSING\n\n: PROCESSING\n\n")


def test_an_interruption_has_the_reason_and_the_partial_text() -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta("Once"), done=False))
    error = reader.interruption("the connection broke")
    assert "was cut short: the connection broke." in str(error)
    assert error.partial == reader.partial == "Once"


@pytest.mark.parametrize("size", [5, None])
def test_an_error_in_a_stream_is_raised_after_the_chunks_before_it(size: int | None) -> None:
    body = sse(delta("Once"), {"error": {"message": "Overloaded now", "code": 503}}, delta("never"))
    reader = openai.stream_reader(SSE)
    texts = []
    with pytest.raises(exceptions.APIError, match="broke off its answer with an error") as caught:  # noqa: PT012
        for start in range(0, len(body), size or len(body)):
            texts += [str(chunk) for chunk in reader.feed(body[start : start + (size or len(body))])]
        reader.end()
    assert texts == ["Once"]
    assert reader.finished
    assert caught.value.partial == "Once"
    assert caught.value.code == 503
    with pytest.raises(exceptions.APIError):
        reader.completion()
    with pytest.raises(exceptions.APIError):
        reader.feed(b"")


def test_an_event_of_type_error_is_an_error() -> None:
    with pytest.raises(exceptions.APIError, match="quota"):
        read(b'event: error\ndata: {"message": "quota", "code": "q"}\n\n')


@pytest.mark.parametrize(
    "bad", ["{", "nonsense", "5", "[]", '{"choices": 5}', '{"choices": [5]}', "[" * 99999]
)
def test_an_event_of_another_shape_is_an_invalid_response(bad: str) -> None:
    with pytest.raises(exceptions.InvalidResponse) as caught:
        read(sse(delta("Once"), bad))
    assert caught.value.partial == "Once"
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "an empty body"),
        (b"<!doctype html><title>Sign in</title>", "HTML that says 'Sign in'"),
        (b'{"choices": [{"message": {"content": "x"}}]}', "what is not an event stream"),
        (b"data: [DONE]\n\n", "a stream without choices"),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', "a stream without choices"),
    ],
)
def test_a_body_that_is_not_a_stream_is_an_invalid_response(body: bytes, expected: str) -> None:
    with pytest.raises(exceptions.InvalidResponse, match=expected):
        read(body)


def test_an_error_object_instead_of_a_stream_is_an_api_error() -> None:
    with pytest.raises(exceptions.APIError, match="no such model"):
        read(json.dumps({"error": {"message": "no such model"}}, indent=1).encode(), size=9)


def test_parts_of_tool_calls_are_merged() -> None:
    def part(**call: Any) -> dict[str, Any]:
        return delta(tool_calls=[call])

    chunks, completion = read(
        sse(
            part(index=0, id="a", type="function", function={"name": "f", "arguments": ""}),
            part(index=0, function={"arguments": '{"x"'}),
            part(index=1, id="b", function={"name": "g", "arguments": '{"y": 2}'}),
            part(index=0, function={"arguments": ": 1}"}),
            delta(reason="tool_calls"),
        )
    )
    assert completion.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", '{"y": 2}'))
    assert completion.finish_reason == "tool_calls"
    message = completion.raw["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0] == {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": '{"x": 1}'},
    }
    assert chunks[1].tool_calls == [{"index": 0, "function": {"arguments": '{"x"'}}]


def test_whole_tool_calls_without_an_index_are_not_merged() -> None:
    whole = [{"id": i, "function": {"name": i, "arguments": {"n": 1}}} for i in "ab"]
    _, completion = read(sse(delta(tool_calls=whole), delta(tool_calls=[{"custom": {"input": "z"}}])))
    assert [(call.id, call.name) for call in completion.tool_calls] == [("a", "a"), ("b", "b")]


def test_other_choices_are_only_in_raw() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": None}]}
    chunks, completion = read(sse(delta("A"), second, delta(reason="stop")))
    assert completion.text == "A"
    assert chunks[1].raw == second


def test_a_character_split_over_two_events_is_joined() -> None:
    def half(code: str) -> str:
        return f'{{"choices":[{{"delta":{{"content":"{code}"}}}}]}}'

    chunks, completion = read(
        sse(half("a\\ud83d"), half("\\ude00b"), half("\\ud83d"), half("c"), half("\\ud83d"))
    )
    assert [str(chunk) for chunk in chunks] == ["a", "😀b", "", "\ufffdc", ""]
    assert completion.text == "a😀b\ufffdc"


def test_many_chunks_are_read_fast() -> None:
    event = sse(delta("word "), done=False)
    reader = openai.stream_reader(SSE)
    started = time.process_time()
    for _ in range(20_000):
        reader.feed(event)
    assert time.process_time() - started < 2  # usually a tenth of this
    assert len(reader.partial) == 100_000


# --- errors


def failure(
    status: int, body: Any, headers: dict[str, str] | None = None, secrets: tuple[str, ...] = ()
) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return openai.error_from_response(
        Head(status, {"x-request-id": "req_9", **(headers or {})}, secrets), content
    )


def test_an_error_has_the_status_the_message_and_advice() -> None:
    body = {
        "error": {"message": "The model `x` does not exist", "type": "invalid", "code": "model_not_found"}
    }
    error = failure(404, body)
    assert type(error) is exceptions.NotFound
    assert str(error) == (
        "openai answered 404 Not Found (code model_not_found, request req_9): The model `x` does not exist. "
        "Check the name of the model, and the pool's BASE_URL."
    )
    assert (error.status_code, error.code, error.type) == (404, "model_not_found", "invalid")
    assert error.request_id == "req_9"
    assert error.body == body == error.response.json()
    assert error.retry_after is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "said"}},
        {"error": "said"},
        {"message": "said"},
        {"detail": "said"},
        {"detail": [{"msg": "said"}]},
        b"said",
        b"<html><head><title>said</title></head>",
        b"\xff said",
        ["said"],
    ],
)
def test_an_error_message_is_found_in_any_shape(body: Any) -> None:
    error = failure(502, body)
    assert type(error) is exceptions.ServerFailed
    assert "502 Bad Gateway" in str(error)
    assert "said" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b"[]", b"5", {"error": None}, {"error": 5}, b"[" * 99999]
)
@pytest.mark.parametrize("status", [302, 401, 429, 599, 999])
def test_an_error_without_a_message_is_still_an_error(status: int, body: Any) -> None:
    error = failure(status, body)
    assert isinstance(error, exceptions.APIStatusError)
    assert str(status) in str(error)
    assert len(str(error)) < 600


def test_a_huge_error_body_is_truncated() -> None:
    error = failure(500, b"x" * 10_000_000)
    assert len(error.body) == len(error.response.content) == 65536
    assert len(str(error)) < 600


def test_no_error_repeats_the_key() -> None:
    escaped = json.dumps({"error": {"message": f"bad key {KEY}"}}).replace("/", "\\/").encode()
    echoed = {"error": {"message": f"Incorrect API key: {KEY}", "code": KEY, KEY: [KEY]}}
    for body in (echoed, escaped, f"<p>{KEY}</p>".encode(), KEY.encode() * 9000):
        error = failure(401, body, {"www-authenticate": f"Bearer {KEY}"}, secrets=(KEY,))
        for shown in (str(error), repr(error.body), repr(error.response.headers), repr(vars(error))):
            assert KEY not in shown
        assert KEY not in error.response.text
    head = Head(200, {}, (KEY,))
    for wrong in (echoed, {"echo": KEY}):
        with pytest.raises(exceptions.LLMPoolError) as caught:
            openai.parse_completion(head, json.dumps(wrong).encode())
        assert KEY not in str(caught.value) + repr(vars(caught.value))
        with pytest.raises(exceptions.LLMPoolError) as caught:
            read(sse(wrong), head)
        assert KEY not in str(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize("key", [KEY, '/+/"quoted\\é😀"'])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_no_error_repeats_the_key_escaped_as_in_json(key: str, levels: int) -> None:
    text = key
    for _ in range(levels):
        text = json.dumps({"message": f"bad key {text}"}).replace("/", "\\/").replace("+", "\\u002B")
    error = failure(401, text.encode(), secrets=(key,))
    assert "bad key ***" in str(error)
    for shown in (str(error), repr(error.body), error.response.text):
        assert "secret" not in shown
        assert "quoted" not in shown


def test_a_body_that_is_not_text_is_kept_unchanged() -> None:
    assert failure(500, b"\xff \xc3\xa9 key", secrets=("key",)).response.content == b"\xff \xc3\xa9 ***"


def test_a_key_is_replaced_in_linear_time() -> None:
    started = time.process_time()
    failure(401, b"\\" * 1_000_000, secrets=("/+/+", KEY))
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "today"}, None),
    ],
)
def test_retry_after_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
    assert failure(429, {}, headers).retry_after == seconds


def test_a_retry_date_without_a_date_header_counts_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after({"retry-after": at}) == pytest.approx(60, abs=5)


def test_the_message_says_when_to_try_again() -> None:
    assert str(failure(429, {"error": {"message": "Slow down!"}}, {"retry-after": "1.5"})).endswith(
        "Slow down! Try again in 1.5 s."
    )
