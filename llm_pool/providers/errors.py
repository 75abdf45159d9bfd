"""What went wrong, read from an answer: the errors all providers share. No secret leaves here."""

from __future__ import annotations

import json
import math
import re
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_pool.exceptions import APIError, APIStatusError, InvalidResponse, status_error
from llm_pool.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "MISFIT",
    "Source",
    "api_error",
    "invalid_response",
    "mend",
    "retry_after",
    "snippet",
    "status_error_from",
]

MISFIT = (AttributeError, IndexError, KeyError, RecursionError, TypeError)
"""What reading raises where an answer has another shape: looking before each step would cost more."""

MAX_BODY = 64 * 1024  # bytes of an error's body that are kept
_SHOWN = 300  # characters of it that a message shows


class Source(NamedTuple):
    """Who answered, and how: what every error tells. ``secrets`` are what no error may tell."""

    name: str
    status_code: int
    headers: Mapping[str, str]
    request_id: str | None
    secrets: tuple[str, ...]


def status_error_from(source: Source, content: bytes) -> APIStatusError:
    """The error for an answer whose status is no success."""
    headers = {name: redact(value, source.secrets) for name, value in source.headers.items()}
    content = _redact_bytes(content, source.secrets)[:MAX_BODY]
    body = redact(_parsed(content), source.secrets)
    says, code, kind = _told(body)
    if not says:
        says = snippet(content, headers.get("content-type")) or "no reason given"
    wait = retry_after(headers)
    error = status_error(source.status_code)
    sentence = (
        f"{source.name} answered {_phrase(source.status_code)}{_marks(code, source.request_id)}: {says}"
    )
    advice = error.advice if wait is None else f"Try again in {wait:g} s."
    return error(
        f"{_closed(sentence)} {advice}".rstrip(),
        status_code=source.status_code,
        headers=headers,
        content=content,
        retry_after=wait,
        code=code,
        kind=kind,
        request_id=source.request_id,
        body=body,
    )


def api_error(source: Source, found: Any, partial: str = "") -> APIError:
    """The error for an error object within an answer whose status was a success."""
    body = redact(found, source.secrets)
    says, code, kind = _told(body)
    did = "broke off its answer with an error" if partial else f"answered {source.status_code} with an error"
    sentence = f"{source.name} {did}{_marks(code, source.request_id)}: {says or _shortened(repr(body))}"
    return APIError(
        _closed(sentence),
        status_code=source.status_code,
        code=code,
        kind=kind,
        request_id=source.request_id,
        body=body,
        partial=partial,
    )


def invalid_response(source: Source, what: str, body: bytes | str, partial: str = "") -> InvalidResponse:
    """The error for an answer that is none of those its API promises; ``what`` names it: "an empty body"."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = redact(text, source.secrets)[:MAX_BODY]
    content_type = source.headers.get("content-type")
    shown = snippet(text, content_type)
    sentence = f"{source.name} answered {source.status_code}{_marks(None, source.request_id)} with {what}"
    return InvalidResponse(
        f"{_closed(f'{sentence}: {shown}' if shown else sentence)} "
        "Check the pool's BASE_URL, and what stands between it and the provider.",
        status_code=source.status_code,
        request_id=source.request_id,
        content_type=content_type,
        body=text,
        partial=partial,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """For how many seconds the provider asks to be left alone; None where it does not say."""
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    value = headers.get("retry-after")
    if (wait := _number(value)) is not None or not value:
        return wait
    try:
        # Its clock and ours may differ: by its own Date header, where there is one.
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        wait = float(value or "")
    except ValueError:
        return None
    return max(0.0, wait) if math.isfinite(wait) else None


def mend(text: str) -> str:
    """``text`` with halves of surrogate pairs joined, and what is left alone replaced by U+FFFD.

    JSON may carry them; nothing that the text is sent on to can.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _redact_bytes(content: bytes, secrets: Iterable[str]) -> bytes:
    text: str = redact(content.decode("utf-8", "surrogateescape"), secrets)
    return text.encode("utf-8", "surrogateescape")


def _parsed(content: bytes) -> Any:
    """The body as JSON, or else as text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def _told(body: Any) -> tuple[str, str | int | None, str | None]:
    """Message, code and type, in each of the shapes that the compatible servers use."""
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, str) and isinstance(body, dict):
        return _shortened(found), None, None
    if not isinstance(found, dict):
        return "", None, None
    says = found.get("message") or found.get("detail")
    code, kind = found.get("code"), found.get("type")
    if says is not None and not isinstance(says, str):
        says = json.dumps(says)
    return (
        _shortened(says or ""),
        code if isinstance(code, (str, int)) else None,
        kind if isinstance(kind, str) else None,
    )


def snippet(body: bytes | str, content_type: str | None) -> str:
    """The beginning of a body, fit for a message: of HTML only its words."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = text[: 16 * _SHOWN]
    if "html" in (content_type or "") or text.lstrip()[:1] == "<":
        text = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>|<[^>]*>?", " ", text)
        return f"HTML that says {_shortened(text)!r}"
    return _shortened(text)


def _shortened(text: str) -> str:
    text = mend(" ".join(text[: 16 * _SHOWN].split()))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _marks(code: str | int | None, request_id: str | None) -> str:
    marks = [f"code {code}"] if code is not None else []
    marks += [f"request {request_id}"] if request_id else []
    return f" ({', '.join(marks)})" if marks else ""


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
