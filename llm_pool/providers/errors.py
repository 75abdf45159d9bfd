"""Makes errors from the answers of all providers. "***" replaces the API keys in the errors."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from llm_pool.exceptions import APIError, APIStatusError, InvalidResponse, status_error
from llm_pool.providers.error_objects import ErrorFields, error_class, error_fields
from llm_pool.providers.retry_after import retry_after
from llm_pool.providers.sse import EventParser, looks_like_events
from llm_pool.providers.texts import repair_surrogates
from llm_pool.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "SHAPE_ERRORS",
    "ErrorContext",
    "api_error",
    "invalid_response",
    "snippet",
    "status_error_from",
]

SHAPE_ERRORS = (AttributeError, IndexError, KeyError, RecursionError, TypeError)
"""Raised by code that reads parsed JSON of an unexpected shape. Checks before each step would be slower."""

MAX_BODY = 64 * 1024  # bytes of the body that an error keeps
_MAX_SNIPPET = 300  # characters of the body that a message shows
_REDIRECT_ADVICE = (
    "Only 307 and 308 within the origin of BASE_URL are followed, at most 20 times. "
    "If the API has moved, correct the pool's BASE_URL."
)
_STREAM_OPTIONS_ADVICE = (
    "The pool asks for the usage of a stream with stream_options; for a server that does not know this "
    "parameter, give stream_options=None with each stream."
)


class ErrorContext(NamedTuple):
    """The facts about an answer that are needed to make an error from it.

    ``name``         the provider's name
    ``status_code``  the HTTP status
    ``headers``      the headers by lower-case name
    ``request_id``   the provider's request id; None if no header has one
    ``secrets``      the keys that an error must not contain
    """

    name: str
    status_code: int
    headers: Mapping[str, str]
    request_id: str | None
    secrets: tuple[str, ...]

    def headers_to_show(self) -> dict[str, str]:
        """Return the headers of the answer without keys."""
        return {name: redact(value, self.secrets) for name, value in self.headers.items()}


def status_error_from(context: ErrorContext, content: bytes) -> APIStatusError:
    """Return the error for an answer with a status outside 200 to 299.

    ``content`` is the body. The error keeps its first 64 KiB.
    """
    headers = context.headers_to_show()
    content = _redact_bytes(content, context.secrets)[:MAX_BODY]
    body = redact(_parse_body(content), context.secrets)
    found = error_fields(body)
    message = _shortened(found.message)
    where, redirect_advice = _redirect(context.status_code, headers)
    if where:
        message = f"{message}, and {where}" if message else where
    if not message:
        message = snippet(content, headers.get("content-type")) or "no reason given"
    wait = _wait(headers, found)
    error = status_error(context.status_code)
    sentence = (
        f"{context.name} answered {_status_text(context.status_code)}"
        f"{_identifiers(found.code, context.request_id)}: {message}"
    )
    advice = redirect_advice or _parameter_advice(message) or _advice(error, wait)
    return error(
        f"{_with_full_stop(sentence)} {advice}".rstrip(),
        status_code=context.status_code,
        headers=headers,
        content=content,
        retry_after=wait,
        code=found.code,
        kind=found.kind,
        request_id=context.request_id,
        body=body,
    )


def api_error(context: ErrorContext, value: Any, partial: str = "") -> APIError:
    """Return the error for an error object in an answer with a status from 200 to 299.

    Its class is the one that the error's code or type stands for, otherwise ``APIError``. Its ``status_code``
    is the status of the answer.

    ``value``    the parsed JSON of the body, or of the stream's event, that reports the error
    ``partial``  the text that a stream delivered before the error; "" without a stream
    """
    body = redact(value, context.secrets)
    found = error_fields(body)
    error = error_class(found)
    event = (
        "broke off its answer with an error" if partial else f"answered {context.status_code} with an error"
    )
    identifiers = _identifiers(found.code, context.request_id)
    reason = _shortened(found.message or _text_of(body)) or "no reason given"
    sentence = f"{context.name} {event}{identifiers}: {reason}"
    details: dict[str, Any] = {
        "status_code": context.status_code,
        "code": found.code,
        "kind": found.kind,
        "request_id": context.request_id,
        "body": body,
        "partial": partial,
    }
    if not issubclass(error, APIStatusError):
        return error(_with_full_stop(sentence), **details)
    headers = context.headers_to_show()
    wait = _wait(headers, found)
    return error(
        f"{_with_full_stop(sentence)} {_advice(error, wait)}".rstrip(),
        retry_after=wait,
        headers=headers,
        content=_as_json(body),
        **details,
    )


def invalid_response(
    context: ErrorContext, what: str, body: bytes | str, partial: str = ""
) -> InvalidResponse:
    """Return the error for an answer without the API's format. See ``Provider.invalid_response``."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = redact(text, context.secrets)[:MAX_BODY]
    content_type = context.headers.get("content-type")
    shown = snippet(text, content_type)
    identifiers = _identifiers(None, context.request_id)
    sentence = f"{context.name} answered {context.status_code}{identifiers} with {what}"
    return InvalidResponse(
        f"{_with_full_stop(f'{sentence}: {shown}' if shown else sentence)} "
        "Check the pool's BASE_URL, and any proxy or gateway on the way to the provider.",
        status_code=context.status_code,
        request_id=context.request_id,
        content_type=content_type,
        body=text,
        partial=partial,
    )


def _redirect(status: int, headers: Mapping[str, str]) -> tuple[str, str]:
    """Return where an answer redirects to, and what to do about it; "", "" if it is not a redirect.

    The place is shown without user name, query and fragment: they can hold a secret.
    """
    location = headers.get("location")
    if not 300 <= status < 400 or not location:
        return "", ""
    try:
        url = httpx.URL(location).copy_with(userinfo=b"", query=None, fragment=None)
        where = f"redirects to {_shortened(str(url)) or 'its own URL'}"
    except httpx.InvalidURL:
        where = "redirects to an invalid URL"
    return where, _REDIRECT_ADVICE


def _wait(headers: Mapping[str, str], found: ErrorFields) -> float | None:
    """Return the wait in seconds that the headers demand, otherwise that in the body; None without both."""
    wait = retry_after(headers)
    return found.retry_after if wait is None else wait


def _parameter_advice(message: str) -> str:
    """Return what to do about an error of a server that does not know the parameter ``stream_options``.

    The pool sends it with each stream of a chat completion.
    """
    return _STREAM_OPTIONS_ADVICE if "stream_options" in message else ""


def _advice(error: type[APIStatusError], wait: float | None) -> str:
    return error.advice if wait is None else f"Try again in {wait:g} s."


def _redact_bytes(content: bytes, secrets: Iterable[str]) -> bytes:
    text: str = redact(content.decode("utf-8", "surrogateescape"), secrets)
    return text.encode("utf-8", "surrogateescape")


def _text_of(body: Any) -> str:
    return body if isinstance(body, str) else repr(body)


def _as_json(body: Any) -> bytes:
    try:
        return json.dumps(body).encode()
    except RecursionError:  # nested too deeply
        return b""


def _parse_body(content: bytes) -> Any:
    """Return the body parsed as JSON, or as text if it is not JSON.

    Some servers frame the error of a streamed call as an event: then the body is the event's data.
    """
    text = content.decode("utf-8", "replace")
    if looks_like_events(content):
        parser = EventParser()
        events = [*parser.feed(content), *parser.end(lenient=True)]
        text = next((event.data for event in events if event.data.strip()), text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def snippet(body: bytes | str, content_type: str | None) -> str:
    """Return the beginning of ``body`` for a message: at most 300 characters, without the tags of HTML."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = text[: 16 * _MAX_SNIPPET]
    if "html" in (content_type or "") or text.lstrip()[:1] == "<":
        text = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>|<[^>]*>?", " ", text)
        return f"HTML that says {_shortened(text)!r}"
    return _shortened(text)


def _shortened(text: str) -> str:
    text = repair_surrogates(" ".join(text[: 16 * _MAX_SNIPPET].split()))
    return text if len(text) <= _MAX_SNIPPET else f"{text[:_MAX_SNIPPET]}..."


def _identifiers(code: str | int | None, request_id: str | None) -> str:
    """Return " (code ..., request ...)" with the values that are given, or "" if none is given."""
    parts = [f"code {code}"] if code is not None else []
    parts += [f"request {request_id}"] if request_id else []
    return f" ({', '.join(parts)})" if parts else ""


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _with_full_stop(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
