"""Makes findings from a ``GET /models`` request: about the key, BASE_URL, MODEL and the rate limits."""

from __future__ import annotations

import difflib
import json
from typing import Any

import httpx

from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.advice import CLIENT_CERT
from llm_pool.diagnostics.report import Finding, Level, Step, sentence
from llm_pool.engine.request import WholeResponse
from llm_pool.engine.tls_alerts import client_cert_refusal
from llm_pool.exceptions import LLMPoolError, ProtocolError, ReadTimeout
from llm_pool.providers.errors import snippet
from llm_pool.providers.head import Head, HeaderView
from llm_pool.redaction import redact

__all__ = [
    "SLOW_SECONDS",
    "answer_finding",
    "failure_finding",
    "rate_limits",
    "slow_answer",
    "unlisted_model",
]

SLOW_SECONDS = 1.0
"""In seconds. A provider is slow if ``GET /models``, its cheapest request, takes this long or longer."""
LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit", "retry-after")
MAX_HEADERS = 30
MAX_MODELS = 5


def answer_finding(settings: PoolSettings, response: WholeResponse, key: str | None) -> Finding:
    """Return the finding about the key and BASE_URL for ``response``, the response to ``GET /models``.

    ``key`` is the API_KEY that the request carried, or None. Keys are removed from the finding.
    """
    path = settings.provider.models_path
    head = Head(response.status, HeaderView(response.headers), settings.secrets(key))
    request = f"GET {path}"
    if 200 <= response.status < 300:
        return _success_finding(settings, head, response.body, request)
    if 300 <= response.status < 400:
        target = redact(head.headers.get("location", "nowhere"), head.secrets)
        text = f"{request}: {response.status} to {target}."
        return Finding("auth.redirected", Level.ERROR, text, _base_url_advice(settings))
    return _refusal_finding(settings, head, response.body, request)


def _refusal_finding(settings: PoolSettings, head: Head, body: bytes, request: str) -> Finding:
    base_url = _base_url_advice(settings)
    status = head.status_code
    error = settings.provider.error_from_response(head, body)
    text = str(error).removesuffix(error.advice).rstrip()
    match status:
        case 401 | 403:
            return Finding("auth.refused", Level.ERROR, text, _key_advice(settings, head, status))
        case 404 if _lacks_path(settings):
            path = httpx.URL(settings.provider.base_url).path
            return Finding(
                "auth.no_path",
                Level.WARNING,
                f"{request}: 404, and BASE_URL has no path: calls will probably fail like this.",
                f"Most servers of this API have it under {path}: try {settings.base_url}{path}.",
            )
        case 404 | 405 | 501:
            url = f"{settings.base_url}{settings.provider.models_path}"
            return Finding(
                "auth.unknown",
                Level.NOTE,
                f"GET {url}: {status}. Either this server has no list of models, and the key could not be "
                "verified, or BASE_URL is wrong, and calls will fail.",
                f"{base_url} If all of this is right, make a call to verify the key.",
            )
        case 429:
            return Finding(
                "auth.rate_limited",
                Level.WARNING,
                text,
                "Check the account's limits and quota; wait before more calls.",
            )
    if status >= 500:
        advice = "The provider, or a gateway before it, fails: check its status page, and try again later."
        return Finding("auth.provider_failed", Level.ERROR, text, advice)
    return Finding("auth.unexpected", Level.WARNING, text, base_url)


def _base_url_advice(settings: PoolSettings) -> str:
    own = settings.provider.base_url
    example = f" (the provider's own is {own})" if own else ""
    return (
        f"Check that BASE_URL of LLM_POOL[{settings.alias!r}] is the complete URL of the API{example}, and "
        "that no proxy or login page answers there."
    )


def _lacks_path(settings: PoolSettings) -> bool:
    """Return whether BASE_URL has no path, although the provider's own URL has a path."""
    return httpx.URL(settings.base_url).path == "/" != httpx.URL(settings.provider.base_url).path


def _key_advice(settings: PoolSettings, head: Head, status: int) -> str:
    if not head.secrets:
        return f"The server needs a key. {settings.how_to_give_key}"
    if status == 403:
        return "The key is valid but not allowed to do this: check its permissions, project and region."
    if settings.key_headers:
        where = " and ".join(f"HEADERS[{name!r}]" for name in settings.key_headers)
        place = f"{where} of LLM_POOL[{settings.alias!r}]"
        return f"The key is wrong, revoked, or another provider's: see {place}."
    return f"The key is wrong, revoked, or another provider's. {settings.how_to_give_key}"


def _success_finding(settings: PoolSettings, head: Head, body: bytes, request: str) -> Finding:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        shown = snippet(
            redact(body.decode("utf-8", "replace"), head.secrets), head.headers.get("content-type")
        )
        text = f"{request}: {head.status_code} with a body that is not JSON: {shown or 'nothing'}."
        return Finding("auth.not_the_api", Level.ERROR, text, _base_url_advice(settings))
    if isinstance(value, dict) and value.get("error"):
        text = str(settings.provider.error_from_object(head, value))
        return Finding("auth.error_in_answer", Level.ERROR, text, _base_url_advice(settings))
    models = value.get("data") if isinstance(value, dict) else None
    if not isinstance(models, list):
        text = f"{request}: {head.status_code} with JSON that is no list of models: the key is not verified."
        return Finding("auth.unknown", Level.NOTE, text, _base_url_advice(settings))
    text = "the server accepts the key" if head.secrets else "the server answers without a key"
    return Finding("auth.accepted", Level.OK, f"{text} ({request}: 200, models: {len(models)})")


def unlisted_model(settings: PoolSettings, body: bytes) -> Finding | None:
    """Return a ``Level.NOTE`` finding if MODEL is not among the models that ``body`` lists; otherwise None.

    ``body`` is the body of the response to ``GET /models``. Also returns None if ``body`` is not a complete
    list of models or lists none, if MODEL is not set, or if the provider lists other names than MODEL's.
    """
    if not settings.provider.lists_models:
        return None
    try:
        value: Any = json.loads(body)
        listed = [] if value.get("has_more") else [str(model["id"]) for model in value["data"]]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None
    if not listed or settings.model is None or settings.model in listed:
        return None
    similar = difflib.get_close_matches(settings.model, listed, 3)
    return Finding(
        "auth.model_unlisted",
        Level.NOTE,
        f"MODEL {settings.model!r} is not among the provider's models.",
        f"Did you mean {' or '.join(map(repr, similar))}?"
        if similar
        else f"It has {', '.join(listed[:MAX_MODELS])}{', ...' if len(listed) > MAX_MODELS else '.'}",
    )


def failure_finding(settings: PoolSettings, error: LLMPoolError) -> Finding:
    """Return the finding for a ``GET /models`` request that failed with ``error``, without a response."""
    text = sentence(error)
    if client_cert_refusal(error) is not None:
        return Finding(
            CLIENT_CERT.code,
            Level.ERROR,
            text,
            CLIENT_CERT.text.format(place=f"LLM_POOL[{settings.alias!r}]"),
        )
    if isinstance(error, ReadTimeout):
        advice = (
            "The provider accepts the request and sends nothing: check its status page; raise "
            "TIMEOUTS['read'] if it is known to be slow."
        )
        return Finding("auth.no_answer", Level.ERROR, text, advice)
    if isinstance(error, ProtocolError):
        return Finding("auth.not_http", Level.ERROR, text, _base_url_advice(settings))
    advice = "The server, or a proxy on the way, closed the connection: see their logs."
    return Finding("auth.broke", Level.ERROR, text, advice)


def slow_answer(seconds: float) -> Finding:
    """Return the finding that the provider took ``seconds`` for ``GET /models``, its cheapest request."""
    return Finding(
        "auth.slow",
        Level.WARNING,
        f"The provider took {seconds:.1f} s for its cheapest answer.",
        "Calls will wait at least as long, and hold their connections: check its status page and its region, "
        "and see the sizing below.",
    )


def rate_limits(response: WholeResponse) -> Step:
    """Return the step "rate_limits": the rate limits that the headers of ``response`` state.

    The finding is a warning if a header says that a limit is used up.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name = raw_name.decode("latin-1").lower()
        if name.startswith(LIMIT_HEADERS) and len(found) < MAX_HEADERS:
            found[name] = raw_value.decode("latin-1")
    facts = {"headers": found}
    used_up = [name for name, value in found.items() if "remaining" in name and value.strip() == "0"]
    if used_up:
        advice = "Calls will be refused (429) until it resets: ask for a higher limit, or send fewer."
        text = f"used up: {', '.join(used_up)}"
        return Step(
            "rate_limits", (Finding("rate_limits.used_up", Level.WARNING, text, advice),), facts=facts
        )
    text = ", ".join(f"{name}: {value}" for name, value in found.items()) or "the provider sends none"
    code = "rate_limits.told" if found else "rate_limits.none"
    return Step("rate_limits", (Finding(code, Level.OK, text),), facts=facts)
