"""Finds the error object in a parsed answer or event, and reads its fields.

Each provider and gateway has its own shape: ``{"error": {...}}``, the same in a list (Gemini),
``{"detail": ...}`` (FastAPI), ``{"errors": [...]}`` (Cloudflare), an error inside a choice (OpenRouter), ...
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from llm_pool.exceptions import APIError, status_error
from llm_pool.providers.retry_after import retry_after_in

__all__ = ["ErrorFields", "error_class", "error_fields", "error_in"]

_ANSWERS = frozenset(
    {"choices", "content", "output", "usage"}
)  # fields of answers; an error has none of them
_CODES = ("code", "error_code", "status_code")
_MESSAGES = ("message", "detail", "error_msg", "status_msg", "msg", "title")
_TYPES = ("type", "status", "error_type")

# The HTTP status that stands for an error by its name: its code, its type or Google's status.
_STATUS_OF = {
    400: (
        "invalid_request_error",
        "invalid_argument",
        "failed_precondition",
        "context_length_exceeded",
        "bad_request",
        "badrequesterror",
        "invalid_prompt",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_base64_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "empty_image_file",
        "failed_to_download_image",
        "unsupported_image_media_type",
    ),
    401: ("authentication_error", "invalid_api_key", "unauthenticated", "unauthorized"),
    402: ("billing_error", "insufficient_credits", "payment_required"),
    403: ("permission_error", "permission_denied", "forbidden"),
    404: ("not_found_error", "not_found", "model_not_found", "notfounderror"),
    409: ("conflict", "conflict_error"),
    413: ("request_too_large",),
    422: ("unprocessable_entity",),
    429: (
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limited",
        "resource_exhausted",
        "too_many_requests",
        "insufficient_quota",
        "quota_exceeded",
        "requests",
        "tokens",
    ),
    500: (
        "api_error",
        "server_error",
        "internal_error",
        "internal_server_error",
        "internalservererror",
        "internal",
        "upstream_error",
    ),
    502: ("bad_gateway", "provider_unavailable"),
    503: (
        "overloaded_error",
        "overloaded",
        "engine_overloaded",
        "engine_overloaded_error",
        "service_unavailable",
        "service_unavailable_error",
        "serviceunavailableerror",
        "server_is_overloaded",
        "server_overloaded",
        "slow_down",
        "unavailable",
    ),
    504: ("timeout_error", "deadline_exceeded", "gateway_timeout", "vector_store_timeout"),
}
_STATUS_BY_NAME = {name: status for status, names in _STATUS_OF.items() for name in names}


class ErrorFields(NamedTuple):
    """What an error object says.

    ``message``      its message; "" if it has none
    ``code``         its code; None if it has none
    ``kind``         its type; None if it has none
    ``retry_after``  seconds to wait before the next try; None if it states none
    """

    message: str = ""
    code: str | int | None = None
    kind: str | None = None
    retry_after: float | None = None


def error_in(raw: Any) -> Any:
    """Return the part of ``raw``, a parsed answer or event, that reports an error; None if no part does."""
    if isinstance(raw, list):
        return raw if any(error_in(item) is not None for item in raw) else None
    if not isinstance(raw, dict):
        return None
    if raw.get("error") or raw.get("type") == "error" or raw.get("object") == "error":
        return raw
    choices, status = raw.get("choices"), raw.get("base_resp")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (choice.get("error") or choice.get("finish_reason") == "error"):
            return choice
    if isinstance(status, dict) and status.get("status_code"):  # MiniMax's, in each answer; 0 is success
        return status
    return raw if _is_bare_error(raw) else None


def _is_bare_error(raw: dict[str, Any]) -> bool:
    """Return whether ``raw`` is an error object that nothing names an error."""
    if raw.keys() & _ANSWERS:
        return False
    if raw.get("detail") or raw.get("errors") or raw.get("error_msg"):
        return True
    return isinstance(raw.get("message"), str) and bool(raw.keys() & {*_CODES, "status"})


def error_fields(body: Any) -> ErrorFields:
    """Return what ``body``, a parsed body or an event, says about its error."""
    error = _innermost(body)
    if isinstance(error, str):
        return (
            ErrorFields(error, retry_after=retry_after_in({}, error)) if error is not body else ErrorFields()
        )
    if not isinstance(error, dict):
        return ErrorFields()
    message = next((_words(error[name]) for name in _MESSAGES if error.get(name)), "")
    code = next((error[name] for name in _CODES if isinstance(error.get(name), (str, int))), None)
    metadata = error["metadata"] if isinstance(error.get("metadata"), dict) else {}
    stated = (each[name] for each in (error, metadata) for name in _TYPES if isinstance(each.get(name), str))
    kind = next((each for each in stated if each != "error"), None)  # "error" is the type of an event
    if upstream := _upstream_words(metadata.get("raw")):
        message = f"{message}: {upstream}" if message else upstream
    return ErrorFields(message, code, kind, retry_after_in({**metadata, **error}, message))


def _innermost(body: Any) -> Any:
    """Return the error object inside ``body``, or the str that some servers send in its place."""
    for _ in range(4):  # {"errors": [{"error": {...}}]} and deeper is not seen
        if isinstance(body, list):
            body = next((item for item in body if isinstance(item, dict)), body[:0])
        if not isinstance(body, dict):
            return body
        inner = body.get("error") or body.get("errors") or body.get("base_resp")
        if not inner or inner is True:
            return body
        body = inner
    return body


def _upstream_words(raw: Any) -> str:
    """Return what the provider behind OpenRouter answered; "" if nothing is known.

    It is text, or an error object as JSON. OpenRouter's own message is only "Provider returned error":
    https://openrouter.ai/docs/api/reference/errors-and-debugging.
    """
    if not isinstance(raw, str):
        return ""
    try:
        return error_fields(json.loads(raw)).message or raw
    except (ValueError, RecursionError):
        return raw


def _words(message: Any) -> str:
    """Return a message as text. FastAPI's "detail" can be a list of {"loc": [...], "msg": "..."}."""
    if isinstance(message, str):
        return message
    if isinstance(message, list) and message and all(isinstance(item, dict) for item in message):
        words = [item.get("msg") or item.get("message") for item in message]
        if all(isinstance(each, str) for each in words):
            return "; ".join(words)
    try:
        return json.dumps(message)
    except RecursionError:  # nested too deeply
        return ""


def error_class(fields: ErrorFields) -> type[APIError]:
    """Return the class that an error's code or type stands for; ``APIError`` if they stand for none."""
    for name in (fields.code, fields.kind):
        if isinstance(name, str) and (status := _STATUS_BY_NAME.get(name.lower())):
            return status_error(status)
    code = fields.code
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        code = int(code)
    return status_error(code) if isinstance(code, int) and 400 <= code < 600 else APIError
