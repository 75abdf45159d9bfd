"""Errors in every shape that providers and gateways send: with 2xx, in a stream, with 4xx and 5xx."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.head import Head
from tests.providers.openai_stream import SSE, delta, openai, sse

OVERLOADED = {"type": "overloaded_error", "message": "Too busy"}


class Found(NamedTuple):
    """What an error must have."""

    kind: type[exceptions.APIError] = exceptions.APIError
    message: str = "Too busy"
    code: str | int | None = None
    type: str | None = None
    retry_after: float | None = None


SHAPES: dict[str, tuple[Any, Found]] = {
    "an object": ({"error": OVERLOADED}, Found(exceptions.Overloaded, type="overloaded_error")),
    "Anthropic's": (
        {"type": "error", "error": OVERLOADED},
        Found(exceptions.Overloaded, type="overloaded_error"),
    ),
    "OpenAI's event": (
        {"type": "error", "code": "rate_limit_exceeded", "message": "Too busy", "sequence_number": 3},
        Found(exceptions.RateLimited, code="rate_limit_exceeded"),
    ),
    "OpenAI's, with a code of a response": (
        {"error": {"code": "server_is_overloaded", "message": "Too busy"}},
        Found(exceptions.Overloaded, code="server_is_overloaded"),
    ),
    "OpenAI's, for an input of a response": (
        {"error": {"code": "invalid_prompt", "message": "Too busy"}},
        Found(exceptions.BadRequest, code="invalid_prompt"),
    ),
    "vLLM's": (
        {"object": "error", "message": "Too busy", "type": "BadRequestError", "code": 400},
        Found(exceptions.BadRequest, code=400, type="BadRequestError"),
    ),
    "a string": ({"error": "Too busy"}, Found()),
    "true": ({"error": True, "message": "Too busy", "code": 429}, Found(exceptions.RateLimited, code=429)),
    "Gemini's": (
        [{"error": {"code": 503, "message": "Too busy", "status": "UNAVAILABLE"}}],
        Found(exceptions.Overloaded, code=503, type="UNAVAILABLE"),
    ),
    "Gemini's, with a time": (
        {
            "error": {
                "code": 429,
                "message": "Too busy",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.Help"},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39.5s"},
                ],
            }
        },
        Found(exceptions.RateLimited, code=429, type="RESOURCE_EXHAUSTED", retry_after=39.5),
    ),
    "OpenAI's, with a time": (
        {"error": {"message": "Too busy. Please try again in 1m2.5s.", "code": "rate_limit_exceeded"}},
        Found(
            exceptions.RateLimited,
            "Too busy. Please try again in 1m2.5s.",
            "rate_limit_exceeded",
            retry_after=62.5,
        ),
    ),
    "Azure's, with a time": (
        {"error": {"message": "Please retry after 20 seconds.", "code": "429"}},
        Found(exceptions.RateLimited, "Please retry after 20 seconds.", "429", retry_after=20.0),
    ),
    "OpenRouter's": (
        {"error": {"code": 502, "message": "Too busy", "metadata": {"error_type": "provider_unavailable"}}},
        Found(exceptions.ServerFailed, code=502, type="provider_unavailable"),
    ),
    "OpenRouter's, with the words of the provider behind it": (
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"raw": "Too busy", "provider_name": "Venice", "retry_after_seconds": 17},
            }
        },
        Found(exceptions.RateLimited, "Provider returned error: Too busy.", 429, retry_after=17.0),
    ),
    "OpenRouter's, with the JSON of the provider behind it": (
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"raw": '{"error": {"message": "Too busy"}}', "provider_name": "Venice"},
            }
        },
        Found(exceptions.RateLimited, "Provider returned error: Too busy.", 429),
    ),
    "a time that is too long": (
        {"error": {"code": 429, "message": "Too busy", "retry_after": 10**400}},
        Found(exceptions.RateLimited, code=429),
    ),
    "in a choice": (
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Too busy"},
                }
            ]
        },
        Found(exceptions.ServerFailed, code=502),
    ),
    "FastAPI's": ({"detail": "Too busy"}, Found()),
    "FastAPI's for a wrong request": (
        {"detail": [{"loc": ["body", "n"], "msg": "Too"}, {"loc": ["body"], "msg": "busy"}]},
        Found(message="Too; busy"),
    ),
    "Cloudflare's": (
        {"success": False, "errors": [{"code": 7003, "message": "Too busy"}], "messages": [], "result": None},
        Found(code=7003),
    ),
    "MiniMax's": (
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "Too busy"}},
        Found(code=1002),
    ),
    "Baidu's": ({"error_code": 336100, "error_msg": "Too busy"}, Found(code=336100)),
    "without a name": (
        {"message": "Too busy", "code": "insufficient_quota"},
        Found(exceptions.RateLimited, code="insufficient_quota"),
    ),
}


def assert_found(error: exceptions.APIError, found: Found) -> None:
    assert found.message in str(error)
    assert "{" not in str(error)
    assert (error.code, error.type) == (found.code, found.type)
    assert getattr(error, "retry_after", None) == found.retry_after
    if found.retry_after is not None:
        assert f"Try again in {found.retry_after:g} s." in str(error)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("partial", ["", "Half an ans"])
def test_an_error_in_a_stream_is_raised_with_its_class(shape: str, partial: str) -> None:
    value, found = SHAPES[shape]
    reader = openai.stream_reader(SSE)
    body = sse(*([delta(partial)] if partial else []), value, delta("never"))
    with pytest.raises(exceptions.APIError) as caught:  # noqa: PT012
        reader.feed(body)
        reader.end()
    assert type(caught.value) is found.kind
    assert_found(caught.value, found)
    assert (caught.value.partial, caught.value.status_code, caught.value.request_id) == (
        partial,
        200,
        "req_1",
    )


FRAMES: dict[str, bytes] = {
    "a field": b"error: %s\n\n",
    "an event": b"event: error\ndata: %s\n\n",
    "an event of another line end": b"event: error\r\ndata: %s\r\n\r\n",
    "nothing": b"%s",
    "nothing, and a line end": b"%s\n",
    "nothing, before the end": b"%s\ndata: [DONE]\n\n",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_an_error_is_found_in_any_frame(frame: str, begun: bool, provider: str) -> None:
    value = json.dumps({"error": OVERLOADED}, indent=1 if frame.startswith("nothing") else None)
    reader = PROVIDERS[provider]().stream_reader(SSE)
    with pytest.raises(exceptions.Overloaded, match="Too busy"):  # noqa: PT012
        reader.feed(b": connected\n\n" * begun + FRAMES[frame] % value.encode())
        reader.end()


@pytest.mark.parametrize("data", [b"", b" ", b"{}", b"Too busy", b"5", b"[]"])
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_an_event_with_the_name_error_is_an_error_whatever_it_says(data: bytes, provider: str) -> None:
    reader = PROVIDERS[provider]().stream_reader(SSE)
    with pytest.raises(exceptions.APIError) as caught:
        reader.feed(b"event: error\ndata: %s\n\n" % data)
    assert type(caught.value) is exceptions.APIError
    assert (data.decode().strip() or "no reason given") in str(caught.value)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "in a choice"])
@pytest.mark.parametrize("framed", [False, True])
def test_an_error_of_a_status_has_the_same_words(shape: str, framed: bool) -> None:
    value, found = SHAPES[shape]
    body = json.dumps(value).encode()
    if framed:
        body = b": hello\n\nevent: error\ndata: %s\n\ndata: [DONE]\n\n" % body
    error = openai.error_from_response(Head(429, {}), body)
    assert type(error) is exceptions.RateLimited
    assert_found(error, found)


def test_a_header_says_better_when_to_try_again_than_the_words() -> None:
    body = json.dumps({"error": {"message": "Try again in 20s"}}).encode()
    assert openai.error_from_response(Head(429, {"retry-after": "3"}), body).retry_after == 3
    with pytest.raises(exceptions.RateLimited, match=r"Try again in 3 s\.") as caught:
        openai.parse_completion(
            Head(200, {"retry-after": "3"}), body.replace(b'{"message', b'{"code": 429, "message')
        )
    assert caught.value.retry_after == 3


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 350ms.", 0.35),
        ("Try again in 6m0s", 360.0),
        ("try again in 1h2m3s", 3723.0),
        ("retry after 1 minute", 60.0),
        ("Please retry in 45.8s", 45.8),
        ("Try again in a moment", None),
        ("Try again in 5 parsecs", None),
        ("20s", None),
    ],
)
def test_a_time_in_words_is_read(words: str, seconds: float | None) -> None:
    body = json.dumps({"error": {"message": words}}).encode()
    assert openai.error_from_response(Head(429, {}), body).retry_after == pytest.approx(seconds)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_in_an_answer_without_a_stream_is_raised_with_its_class(shape: str) -> None:
    value, found = SHAPES[shape]
    with pytest.raises(exceptions.APIError) as caught:
        openai.parse_completion(SSE, json.dumps(value).encode())
    assert type(caught.value) is found.kind
    assert_found(caught.value, found)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "keepalive", "sequence_number": 3},
        {"id": "c1", "choices": None},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        {"choices": [{"index": 0, "delta": {"content": ""}}], "error": None},
        {"choices": [{"index": 0, "delta": {"content": ""}}], "base_resp": {"status_code": 0}},
        {"message": "thinking"},
        {},
    ],
)
def test_what_is_no_error_does_not_end_a_stream(event: dict[str, Any]) -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta('say "error"'), event, delta(reason="stop")))
    assert reader.completion().text == 'say "error"'


def test_an_error_after_the_end_of_the_answer_does_not_matter() -> None:
    reader = openai.stream_reader(SSE)
    reader.feed(sse(delta("Whole"), delta(reason="stop"), {"error": OVERLOADED}, done=False))
    assert reader.completion().text == "Whole"
