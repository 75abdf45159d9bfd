"""Reads how long a provider wants its caller to wait before the next try."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from llm_pool.providers.durations import seconds_of

__all__ = ["retry_after", "retry_after_in"]

# "Please try again in 1m12.5s." (OpenAI), "Please retry after 20 seconds." (Azure)
_IN_WORDS = re.compile(r"(?i)\b(?:try again|retry)\s+(?:in|after)\s+([\d.]+\s*[a-z]+(?:\s*[\d.]+\s*[a-z]+)*)")
_MAX_SEARCHED = 4096  # characters of a message


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before the next try, or None if no header has a valid value.

    ``headers`` have lower-case names.

    ``Retry-After`` is a number of seconds or a date (RFC 9110, section 10.2.3). ``retry-after-ms`` is not
    standard, but is read first because it is more exact.
    """
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    value = headers.get("retry-after")
    if (wait := _number(value)) is not None or not value:
        return wait
    try:
        # The server's clock may differ from this machine's: count from the server's own Date header.
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def retry_after_in(error: Mapping[str, Any], message: str) -> float | None:
    """Return the seconds that an error object states; None if it states none.

    ``error`` is Google's object, with a ``RetryInfo`` in its details
    (https://cloud.google.com/apis/design/errors#error_details), or one with a field "retry_after" or
    "retry_after_seconds" (OpenRouter's, with the fields of its metadata), in seconds.
    ``message`` is the error's message, which can contain the time in words.
    """
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (wait := seconds_of(delay)) is not None:
            return wait
    stated = error.get("retry_after", error.get("retry_after_seconds"))
    if isinstance(stated, (int, float, str)) and (wait := _number(stated)) is not None:
        return wait
    words = _IN_WORDS.search(message[:_MAX_SEARCHED])
    return seconds_of(words[1]) if words else None


def _number(value: str | float | None) -> float | None:
    try:
        wait = float(value or "")
    except (ValueError, OverflowError):
        return None
    return max(0.0, wait) if math.isfinite(wait) else None
