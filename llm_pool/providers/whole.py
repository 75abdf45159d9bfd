"""Reads a whole answer, one JSON object: what all providers' have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llm_pool.providers.answers import MISFIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.completions import Completion, Timing
    from llm_pool.exceptions import LLMPoolError
    from llm_pool.providers.base import Head, Provider

__all__ = ["read_completion"]


def read_completion(
    provider: Provider,
    head: Head,
    body: bytes,
    timing: Timing | None,
    *,
    completion_of: Callable[[Any, str | None, Timing | None], Completion],
    misfit: Callable[[Any], str],
) -> Completion | LLMPoolError:
    """What ``completion_of`` makes of the object, or the error to raise: ``misfit`` words what came.

    The error is returned, so that its traceback has no frame in which ``body`` is seen.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        what = "what is not JSON" if body.strip() else "an empty body"
        return provider.invalid_response(head, what, body)
    if isinstance(raw, dict) and raw.get("error"):
        return provider.error_from_object(head, raw)
    try:
        return completion_of(raw, provider.request_id(head), timing)
    except MISFIT:
        return provider.invalid_response(head, misfit(raw), body)
