"""The options of ``LLMPool.with_options``: they change a pool's settings for some of its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Final

from llm_pool.conf import validators
from llm_pool.conf.reader import TYPE, VALUE, Invalid, Problem, Reader, Validator
from llm_pool.conf.settings import TIMEOUTS, PoolSettings
from llm_pool.engine.config import Timeouts
from llm_pool.exceptions import InvalidParameter, with_article
from llm_pool.transports.query import Parameters

__all__ = ["UNSET", "Unset", "with_options"]


class Unset(Enum):
    """The type of ``UNSET``."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""The value of an option that is not given, where None has a meaning."""


def with_options(
    settings: PoolSettings,
    timeout: float | Mapping[str, float | None] | Unset | None,
    headers: Mapping[str, str] | None,
    query: Parameters | None,
    idempotency_key: str | None,
    **later: Any,
) -> PoolSettings:
    """Return ``settings`` with the options of ``LLMPool.with_options``. ``later``: those of later versions.

    Raises ``InvalidParameter`` for an option that is not valid, and for each of ``later`` that is given.
    """
    for name, value in later.items():
        if value is not UNSET:
            raise InvalidParameter(f"with_options({name}=...) is not supported yet. Leave it out.")
    settings = _with_headers(settings, _valid("headers", headers, validators.headers))
    if idempotency_key is not None:
        key = _valid("idempotency_key", idempotency_key, _idempotency_key)
        settings = _with_headers(settings, {"Idempotency-Key": key})
    timeouts = settings.pool.timeouts
    if timeout is not UNSET:
        timeouts = _with_timeout(settings, timeout)
    return replace(
        settings,
        query={**settings.query, **_valid("query", query, validators.query)},
        pool=replace(settings.pool, timeouts=timeouts),
    )


def _valid(name: str, value: Any, validator: Validator) -> Any:
    """Return the valid ``value`` of the option ``name``. The error for an invalid one does not show it."""
    try:
        return validator(value)
    except Invalid as invalid:
        raise InvalidParameter(f"with_options({name}=...) {invalid.what}. {invalid.hint}") from None


def _with_headers(settings: PoolSettings, headers: Mapping[str, str]) -> PoolSettings:
    """Return ``settings`` with ``headers`` in the place of HEADERS of the same names.

    A header with a key replaces the pool's key too, in whatever header or setting that is.
    """
    replaced = {name.lower() for name in headers}
    if not replaced.isdisjoint(settings.provider.key_headers):
        replaced |= settings.provider.key_headers
        settings = replace(settings, api_key=None)
    kept = {name: value for name, value in settings.headers.items() if name.lower() not in replaced}
    return replace(settings, headers={**kept, **headers})


def _with_timeout(settings: PoolSettings, timeout: Any) -> Timeouts:
    if not isinstance(timeout, Mapping):
        return replace(settings.pool.timeouts, total=_valid("timeout", timeout, _total))
    problems: list[Problem] = []
    reader = Reader(problems, settings.alias, timeout, place="with_options(timeout=...)")
    valid = reader.read(TIMEOUTS)
    if problems:
        raise InvalidParameter(str(problems[0]))
    return replace(settings.pool.timeouts, **valid)


def _total(value: Any) -> float | None:
    try:
        return TIMEOUTS["total"](value)  # type: ignore[no-any-return]
    except Invalid as invalid:
        hint = f'{invalid.hint} For single timeouts give a dict such as {{"read": 60.0}}.'
        raise Invalid(invalid.id, invalid.what, hint) from None


def _idempotency_key(value: Any) -> str:
    hint = "Give a string of printable ASCII, a new one for each call that is not to be repeated."
    if not isinstance(value, str):
        raise Invalid(TYPE, f"is {with_article(value)}, not a string", hint)
    if not value or not validators.is_header_value(value):
        what = "is empty" if not value else "holds a character that no HTTP header can carry"
        raise Invalid(VALUE, what, hint)
    return value
