"""Removes keys, prompts and answers from logs, reprs and error reports."""

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
    """A str whose repr does not show its text: error reports show the repr of every local variable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def without_frames(error: E) -> E:
    """Remove the tracebacks of ``error`` and of all exceptions in its chain. Return ``error``.

    The frames of a traceback hold local variables, and so prompts and keys.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            current.__traceback__ = None
            pending += (current.__cause__, current.__context__)
    return error


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """Return ``value`` with "***" in place of each of ``secrets``, plain or escaped as in JSON.

    Strings, lists and dicts are searched, and other values are returned unchanged. Returns "***" for a value
    that is nested too deeply to be searched.
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
    """Return a pattern for ``secret``, plain or escaped up to three times: JSON in JSON in JSON.

    Characters that JSON never escapes match only themselves. That, and the limit of three, keep the search
    fast.
    """
    return re.compile("".join(c if c in _NEVER_ESCAPED else _plain_or_escaped(c) for c in secret))


def _plain_or_escaped(character: str) -> str:
    # Each level also escapes the backslashes of the level before, so the levels have 1, 3 and 7 backslashes.
    units = character.encode("utf-16-be").hex(" ", 2).split()
    code = "".join(rf"\\{{1,7}}(?i:u{unit})" for unit in units)
    return rf"(?:\\{{0,7}}{re.escape(character)}|{code})"
