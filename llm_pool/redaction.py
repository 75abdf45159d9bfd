"""Keeps keys, prompts and answers out of logs, reprs and reports of errors."""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Hidden", "redact", "without_frames"]

E = TypeVar("E", bound=BaseException)

_STARS = "***"
_NEVER_ESCAPED = frozenset(ascii_letters + digits + "-_")


class Hidden(str):
    """Text whose repr is stars: reports of errors show the repr of every local variable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def without_frames(error: E) -> E:
    """Remove the tracebacks of ``error``, its causes and contexts: their frames hold what was sent."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.__traceback__ = None
        current = current.__cause__ or current.__context__
    return error


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """``value`` with stars wherever it repeats one of the ``secrets``, escaped as in JSON or not."""
    try:
        for secret in secrets:
            value = _redacted(value, secret)
    except RecursionError:
        return _STARS
    return value


def _redacted(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        value = value.replace(secret, _STARS)
        return _escaped(secret).sub(_STARS, value) if "\\" in value else value
    if isinstance(value, list):
        return [_redacted(item, secret) for item in value]
    if isinstance(value, dict):
        return {_redacted(key, secret): _redacted(item, secret) for key, item in value.items()}
    return value


@lru_cache(maxsize=32)
def _escaped(secret: str) -> re.Pattern[str]:
    """``secret`` with any of its signs escaped, up to three times over: there is JSON in strings of JSON.

    What nobody escapes is taken as it stands: that, and the bound, make for a fast search.
    """
    return re.compile("".join(c if c in _NEVER_ESCAPED else _either(c) for c in secret))


def _either(sign: str) -> str:
    units = sign.encode("utf-16-be").hex(" ", 2).split()
    code = "".join(rf"\\{{1,7}}(?i:u{unit})" for unit in units)
    return rf"(?:\\{{0,7}}{re.escape(sign)}|{code})"
