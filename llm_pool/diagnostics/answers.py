"""What the answer to the cheapest request says about key, address and provider."""

from __future__ import annotations

import difflib
import json
from typing import Any

import httpx

from llm_pool.conf import PoolSettings
from llm_pool.diagnostics.report import Finding, Level, Step, sentence
from llm_pool.engine.request import WholeResponse
from llm_pool.exceptions import LLMPoolError, ProtocolError, ReadTimeout
from llm_pool.providers.base import Head, HeaderView
from llm_pool.providers.errors import snippet
from llm_pool.redaction import redact

__all__ = ["SLOW_SECONDS", "judge_answer", "judge_failure", "rate_limits", "slow_answer", "unlisted_model"]

SLOW_SECONDS = 1.0
"""Seconds to the answer of the cheapest request from which a provider counts as slow."""
LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit", "retry-after")
MOST_HEADERS = 30
SHOWN = 5
BASE_URL = (
    "See that BASE_URL of {place} is the API's, whole (many end in /v1), and that no proxy or login page "
    "answers in its place."
)


def judge_answer(settings: PoolSettings, whole: WholeResponse, key: str | None) -> Finding:
    """The finding for a response to ``GET`` the provider's list of models."""
    path = settings.provider.models_path
    place = f"LLM_POOL[{settings.alias!r}]"
    head = Head(whole.status, HeaderView(whole.headers), settings.secrets(key))
    asked = f"GET {path}"
    if 200 <= whole.status < 300:
        return _judge_success(settings, head, whole.body, asked)
    if 300 <= whole.status < 400:
        to = redact(head.headers.get("location", "nowhere"), head.secrets)
        text = f"{asked}: {whole.status} to {to}."
        return Finding("auth.redirected", Level.ERROR, text, BASE_URL.format(place=place))
    return _judge_refusal(settings, head, whole.body, asked)


def _judge_refusal(settings: PoolSettings, head: Head, body: bytes, asked: str) -> Finding:
    base_url = BASE_URL.format(place=f"LLM_POOL[{settings.alias!r}]")
    status = head.status_code
    error = settings.provider.error_from_response(head, body)
    text = str(error).removesuffix(error.advice).rstrip()
    match status:
        case 401 | 403:
            return Finding("auth.refused", Level.ERROR, text, _about_key(settings, head, status))
        case 404 if _lacks_path(settings):
            usual = httpx.URL(settings.provider.base_url).path
            return Finding(
                "auth.no_path",
                Level.WARNING,
                f"{asked}: 404, and BASE_URL has no path: calls will fail in the same way.",
                f"Most servers of this API have it under {usual}: try {settings.base_url}{usual}.",
            )
        case 404 | 405 | 501:
            return Finding(
                "auth.unknown",
                Level.NOTE,
                f"{asked}: {status}. This server has no list of models, so the key could not be verified.",
                f"{base_url} If it is, a call will tell about the key.",
            )
        case 429:
            return Finding(
                "auth.rate_limited",
                Level.WARNING,
                text,
                "See the account's limits and quota; wait before more calls.",
            )
    if status >= 500:
        advice = "The provider, or a gateway before it, fails: see its status page, and try again later."
        return Finding("auth.provider_failed", Level.ERROR, text, advice)
    return Finding("auth.unexpected", Level.WARNING, text, base_url)


def _lacks_path(settings: PoolSettings) -> bool:
    """Whether the API, which has a path of its own at the provider, is looked for at the root."""
    return httpx.URL(settings.base_url).path == "/" != httpx.URL(settings.provider.base_url).path


def _about_key(settings: PoolSettings, head: Head, status: int) -> str:
    if not head.secrets:
        return f"The server wants a key. {settings.how_to_give_key}"
    if status == 403:
        return "The key is known but not allowed to do this: see its permissions, project and region."
    if settings.key_headers:
        where = " and ".join(f"HEADERS[{name!r}]" for name in settings.key_headers)
        return (
            f"The key is wrong, revoked, or another provider's: see {where} of LLM_POOL[{settings.alias!r}]."
        )
    return f"The key is wrong, revoked, or another provider's. {settings.how_to_give_key}"


def _judge_success(settings: PoolSettings, head: Head, body: bytes, asked: str) -> Finding:
    place = f"LLM_POOL[{settings.alias!r}]"
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        shown = snippet(
            redact(body.decode("utf-8", "replace"), head.secrets), head.headers.get("content-type")
        )
        text = f"{asked}: {head.status_code} with what is not JSON: {shown or 'nothing'}."
        return Finding("auth.not_the_api", Level.ERROR, text, BASE_URL.format(place=place))
    if isinstance(value, dict) and value.get("error"):
        text = str(settings.provider.error_from_object(head, value))
        return Finding("auth.error_in_answer", Level.ERROR, text, BASE_URL.format(place=place))
    models = value.get("data") if isinstance(value, dict) else None
    if not isinstance(models, list):
        text = f"{asked}: {head.status_code} with JSON that is no list of models, so the key is not proven."
        return Finding("auth.unknown", Level.NOTE, text, BASE_URL.format(place=place))
    what = "the server takes the key" if head.secrets else "the server answers without a key"
    return Finding("auth.accepted", Level.OK, f"{what} ({asked}: 200, models: {len(models)})")


def unlisted_model(settings: PoolSettings, body: bytes) -> Finding | None:
    """A note where the provider lists all its models, and MODEL is not among them."""
    try:
        value: Any = json.loads(body)
        listed = [] if value.get("has_more") else [str(model["id"]) for model in value["data"]]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None
    if not listed or settings.model is None or settings.model in listed:
        return None
    near = difflib.get_close_matches(settings.model, listed, 3)
    return Finding(
        "auth.model_unlisted",
        Level.NOTE,
        f"MODEL {settings.model!r} is not among the provider's models.",
        f"Did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"It has {', '.join(listed[:SHOWN])}{', ...' if len(listed) > SHOWN else '.'}",
    )


def judge_failure(error: LLMPoolError, place: str) -> Finding:
    """The finding for a request that brought no response."""
    text = sentence(error)
    if isinstance(error, ReadTimeout):
        advice = (
            "The provider takes the request and is silent: see its status page; raise TIMEOUTS['read'] if it "
            "is known to be slow."
        )
        return Finding("auth.no_answer", Level.ERROR, text, advice)
    if isinstance(error, ProtocolError):
        return Finding("auth.not_http", Level.ERROR, text, BASE_URL.format(place=place))
    advice = "The connection stood, and broke during the request: see the server's and any proxy's log."
    return Finding("auth.broke", Level.ERROR, text, advice)


def slow_answer(seconds: float) -> Finding:
    """The finding for a provider that took its time."""
    return Finding(
        "auth.slow",
        Level.WARNING,
        f"The provider took {seconds:.1f} s for its cheapest answer.",
        "Calls will wait at least as long, and hold their connections: see its status page, its region, "
        "and the sizing below.",
    )


def rate_limits(whole: WholeResponse) -> Step:
    """The limits that the provider tells in its headers."""
    found: dict[str, str] = {}
    for raw_name, raw_value in whole.headers:
        name = raw_name.decode("latin-1").lower()
        if name.startswith(LIMIT_HEADERS) and len(found) < MOST_HEADERS:
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
