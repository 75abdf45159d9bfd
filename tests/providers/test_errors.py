from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers.base import Head
from llm_pool.providers.retry_after import retry_after
from tests.providers.openai_stream import openai, read, sse

KEY = "sk-very/secret+key"


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


def test_a_server_that_does_not_know_stream_options_is_named_the_way_out() -> None:
    error = failure(400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}})
    assert str(error).endswith("give stream_options=None with each stream.")


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
