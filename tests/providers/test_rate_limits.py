from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_pool.providers.head import HeaderView
from llm_pool.providers.rate_limits import RateLimit, RateLimitWindow, read_rate_limit

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def read(**headers: str) -> RateLimit | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_rate_limit({"date": DATE, **named})


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {
                "x_ratelimit_limit_requests": "60",
                "x_ratelimit_remaining_requests": "59",
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_limit_tokens": "150000",
                "x_ratelimit_remaining_tokens": "149984",
                "x_ratelimit_reset_tokens": "6m0s",
            },
            RateLimit(RateLimitWindow(60, 59, at(1)), RateLimitWindow(150000, 149984, at(360))),
        ),
        (
            {
                "anthropic_ratelimit_requests_limit": "50",
                "anthropic_ratelimit_requests_remaining": "0",
                "anthropic_ratelimit_requests_reset": "2026-11-22T10:00:07Z",
                "anthropic_ratelimit_input_tokens_limit": "20000",
                "anthropic_ratelimit_output_tokens_remaining": "8000",
            },
            RateLimit(
                RateLimitWindow(50, 0, at(7)),
                input_tokens=RateLimitWindow(20000),
                output_tokens=RateLimitWindow(remaining=8000),
            ),
        ),
        (
            {"x_ratelimit_limit_req_minute": "6", "x_ratelimit_remaining_tokens_minute": "9"},
            RateLimit(RateLimitWindow(6), RateLimitWindow(remaining=9)),
        ),
        (
            {"x_ratelimit_limit": "20", "x_ratelimit_reset": str(int(at(60).timestamp() * 1000))},
            RateLimit(RateLimitWindow(20, None, at(60))),
        ),
        ({"x_ratelimit_limit_requests": "-1", "x_ratelimit_remaining_requests": "many"}, None),
        ({}, None),
    ],
)
def test_the_limits_of_each_provider_are_read(headers: dict[str, str], expected: Any) -> None:
    assert read(**headers) == expected


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        ("12ms", at(0.012)),
        ("0", at(0)),
        ("10", at(10)),
        ("1.5", at(1.5)),
        ("1h0m5s", at(3605)),
        (str(int(at(60).timestamp())), at(60)),
        ("2026-11-22T12:00:30+02:00", at(30)),
        ("2026-11-22T10:00:30", at(30)),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("9" * 400, None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_a_reset_in_any_form_is_a_time(reset: str, expected: datetime | None) -> None:
    limits = read(x_ratelimit_limit_requests="1", x_ratelimit_reset_requests=reset)
    assert limits is not None
    assert limits.requests == RateLimitWindow(1, None, expected)


def test_without_a_date_a_reset_counts_from_now() -> None:
    limits = read_rate_limit({"x-ratelimit-reset-requests": "60s", "date": "today"})
    assert limits is not None
    assert limits.requests is not None
    assert limits.requests.reset is not None
    assert timedelta(seconds=55) < limits.requests.reset - datetime.now(UTC) <= timedelta(seconds=60)


def test_headers_are_found_in_any_case() -> None:
    limits = read_rate_limit(HeaderView([(b"X-RateLimit-Limit-Requests", b"7")]))
    assert limits == RateLimit(RateLimitWindow(7))
