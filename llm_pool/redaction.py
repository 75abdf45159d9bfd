"""Removes keys, prompts, answers and control characters from logs, reprs and error reports."""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Hidden", "printable", "redact", "without_frames"]

E = TypeVar("E", bound=BaseException)

_STARS = "***"
_NEVER_ESCAPED = frozenset(ascii_letters + digits + "-_")
# Control characters, line separators, the controls of bidirectional text, and halves of surrogate pairs.
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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


def printable(text: str) -> str:
    """Return ``text`` with each character escaped that a terminal or a log file could interpret.

    For text from elsewhere in messages and logs: a line break could forge a line of the log, and ESC could
    change what a terminal shows. The escapes are those of JSON (RFC 8259, section 7), such as "\\u001b", so
    that ``redact`` finds a key before and after. ``text`` that is escaped already is returned unchanged.
    """
    return _NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


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
    short = r"|\\{1,7}t" if character == "\t" else ""  # the one control character that a header can carry
    return rf"(?:\\{{0,7}}{re.escape(character)}|{code}{short})"
