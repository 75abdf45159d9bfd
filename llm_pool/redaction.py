"""Keeps keys, prompts and answers out of logs, reprs and error reports."""

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
    """A str whose repr is stars: error reports show the repr of every local variable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def without_frames(error: E) -> E:
    """Remove the tracebacks of ``error``, its causes and its contexts: their frames hold what was sent.

    Returns ``error``.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.__traceback__ = None
        current = current.__cause__ or current.__context__
    return error


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """Return ``value`` with stars in place of the ``secrets``, plain or escaped as in JSON.

    ``value``: parsed JSON, or any other object. Strings, lists and dicts are searched.
    """
    try:
        for secret in secrets:
            value = _redacted(value, secret)
    except RecursionError:
        return _STARS
    return value


def _redacted(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        value = value.replace(secret, _STARS)
        return _pattern_of(secret).sub(_STARS, value) if "\\" in value else value
    if isinstance(value, list):
        return [_redacted(item, secret) for item in value]
    if isinstance(value, dict):
        return {_redacted(key, secret): _redacted(item, secret) for key, item in value.items()}
    return value


@lru_cache(maxsize=32)
def _pattern_of(secret: str) -> re.Pattern[str]:
    """A pattern for ``secret``, whose characters may be escaped up to three times: JSON in JSON in JSON.

    Characters that are never escaped match only themselves. That, and the limit, keep the search fast.
    """
    return re.compile("".join(c if c in _NEVER_ESCAPED else _plain_or_escaped(c) for c in secret))


def _plain_or_escaped(character: str) -> str:
    # Each of the three levels also escapes the backslashes of the one before: 1, 3, then 7 of them.
    units = character.encode("utf-16-be").hex(" ", 2).split()
    code = "".join(rf"\\{{1,7}}(?i:u{unit})" for unit in units)
    return rf"(?:\\{{0,7}}{re.escape(character)}|{code})"
