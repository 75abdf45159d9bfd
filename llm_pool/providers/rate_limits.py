"""Reads what the headers of an answer say about the provider's limits.

OpenAI and the servers that follow it (Azure, Groq, ...) send ``x-ratelimit-limit-requests``,
``x-ratelimit-remaining-tokens``, ``x-ratelimit-reset-requests``:
https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers. Anthropic sends
``anthropic-ratelimit-requests-limit``: https://docs.anthropic.com/en/api/rate-limits#response-headers.
Mistral sends ``x-ratelimit-limit-req-minute`` and no reset; OpenRouter ``X-RateLimit-Limit``, with a reset in
milliseconds since 1970: https://openrouter.ai/docs/api-reference/limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from llm_pool.providers.durations import seconds_of

__all__ = ["RateLimit", "RateLimitWindow", "read_rate_limit"]


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """One limit of a provider. A value that the answer does not state, or that is no number, is None.

    ``limit``      how many requests or tokens the provider allows in a period, such as a minute
    ``remaining``  how many of them are left
    ``reset``      when all of them will be available again, in UTC
    """

    limit: int | None = None
    remaining: int | None = None
    reset: datetime | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limits of a provider, for the key and the model of the call. A limit that is not stated is None.

    ``requests``       the limit of requests
    ``tokens``         the limit of tokens, of requests and answers together
    ``input_tokens``   Anthropic's limit of the tokens of requests
    ``output_tokens``  Anthropic's limit of the tokens of answers
    """

    requests: RateLimitWindow | None = None
    tokens: RateLimitWindow | None = None
    input_tokens: RateLimitWindow | None = None
    output_tokens: RateLimitWindow | None = None


_FIELDS = ("limit", "remaining", "reset")
# For each limit, templates of the names of its headers, in the order in which they are looked up.
_NAMES = {
    "requests": (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-req-minute",
        "x-ratelimit-{}",
    ),
    "tokens": ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}", "x-ratelimit-{}-tokens-minute"),
    "input_tokens": ("anthropic-ratelimit-input-tokens-{}",),
    "output_tokens": ("anthropic-ratelimit-output-tokens-{}",),
}
_MIN_TIMESTAMP = 1e9  # seconds: no limit is counted over 30 years, and no answer is from before 2001
_MIN_MILLISECONDS = 1e12


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the limits that ``headers`` state; None if they state none. Invalid values are left out.

    ``headers`` are found by lower-case names. A reset that is a duration counts from the header ``Date``, or
    from now if there is none.
    """
    windows = {name: window for name, templates in _NAMES.items() if (window := _window(headers, templates))}
    return RateLimit(**windows) if windows else None


def _window(headers: Mapping[str, str], templates: tuple[str, ...]) -> RateLimitWindow | None:
    for template in templates:
        limit, remaining, reset = (headers.get(template.format(name)) for name in _FIELDS)
        window = RateLimitWindow(_count(limit), _count(remaining), _time(reset, headers))
        if window != RateLimitWindow():
            return window
    return None


def _count(value: str | None) -> int | None:
    """Return ``value`` as a number of requests or tokens. Some servers send -1 for no limit."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number >= 0 else None


def _time(value: str | None, headers: Mapping[str, str]) -> datetime | None:
    """Return when ``value`` is: a date, a time since 1970, a number of seconds, or a duration like "6m0s"."""
    if not value:
        return None
    value = value.strip()
    try:
        if (seconds := seconds_of(value)) is not None:
            return _sent_at(headers) + timedelta(seconds=seconds)
        if "-" in value[1:]:
            time = datetime.fromisoformat(value)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        return _time_of_number(float(value), headers)
    except (ValueError, OverflowError):
        return None


def _time_of_number(number: float, headers: Mapping[str, str]) -> datetime | None:
    if number < 0:
        return None
    if number >= _MIN_MILLISECONDS:
        return datetime.fromtimestamp(number / 1000, UTC)
    if number >= _MIN_TIMESTAMP:
        return datetime.fromtimestamp(number, UTC)
    return _sent_at(headers) + timedelta(seconds=number)


def _sent_at(headers: Mapping[str, str]) -> datetime:
    try:
        return parsedate_to_datetime(headers.get("date") or "").astimezone(UTC)
    except (ValueError, TypeError):
        return datetime.now(UTC)
