"""Errors by a word or a status, with what each API says for them.

Sources: https://platform.openai.com/docs/guides/error-codes and https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["ERRORS", "APIError", "error_of"]


@dataclass(frozen=True)
class APIError:
    """An error in the words of both APIs.

    ``message``  the sentence; ``status``, ``type`` and ``code`` are OpenAI's, ``anthropic_status`` and
    ``anthropic_type`` Anthropic's, which has no codes.
    """

    message: str
    status: int
    type: str
    code: str | int | None
    anthropic_status: int
    anthropic_type: str


def _error(message: str, openai: tuple[int, str, str | None], anthropic: tuple[int, str]) -> APIError:
    return APIError(message, *openai, *anthropic)


_INVALID = "invalid_request_error"

ERRORS = {
    "bad_request": _error("Invalid value in the request.", (400, _INVALID, None), (400, _INVALID)),
    "context_length": _error(
        "The prompt is too long.", (400, _INVALID, "context_length_exceeded"), (400, _INVALID)
    ),
    "authentication": _error(
        "Incorrect API key provided.", (401, _INVALID, "invalid_api_key"), (401, "authentication_error")
    ),
    "billing": _error(
        "You exceeded your current quota.",
        (429, "insufficient_quota", "insufficient_quota"),
        (402, "billing_error"),
    ),
    "permission": _error("No access to this model.", (403, _INVALID, None), (403, "permission_error")),
    "not_found": _error(
        "The model does not exist.", (404, _INVALID, "model_not_found"), (404, "not_found_error")
    ),
    "conflict": _error("The resource is in use.", (409, _INVALID, None), (409, _INVALID)),
    "too_large": _error("The request is too large.", (413, _INVALID, None), (413, "request_too_large")),
    "rate_limited": _error(
        "Rate limit reached.", (429, "requests", "rate_limit_exceeded"), (429, "rate_limit_error")
    ),
    "server_error": _error(
        "The server had an error while processing the request.",
        (500, "server_error", None),
        (500, "api_error"),
    ),
    "overloaded": _error(
        "Overloaded",
        (503, "service_unavailable_error", "server_is_overloaded"),
        (529, "overloaded_error"),
    ),
    "timeout": _error("The request timed out.", (504, "server_error", "timeout"), (504, "timeout_error")),
}
"""The errors by their words."""

_BY_STATUS = {
    400: "bad_request",
    401: "authentication",
    402: "billing",
    403: "permission",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


def error_of(
    error: int | str,
    *,
    message: str | None = None,
    type: str | None = None,  # noqa: A002 - the API's word
    code: str | int | None = None,
) -> APIError:
    """The error of a word or a status, with another message, type or code if given.

    A status is sent as it stands by both APIs. Raises ValueError for an unknown word.
    """
    if isinstance(error, str):
        if error not in ERRORS:
            near = get_close_matches(error, ERRORS, 1)
            advice = (
                f"did you mean {near[0]!r}?" if near else f"choose a status or one of {', '.join(ERRORS)}."
            )
            raise ValueError(f"Unknown error {error!r}: {advice}")
        known, statuses = ERRORS[error], (ERRORS[error].status, ERRORS[error].anthropic_status)
    else:
        known = ERRORS[_BY_STATUS.get(error, "server_error" if error >= 500 else "bad_request")]
        statuses = (error, error)
    return APIError(
        message or known.message,
        statuses[0],
        type or known.type,
        known.code if code is None else code,
        statuses[1],
        type or known.anthropic_type,
    )
