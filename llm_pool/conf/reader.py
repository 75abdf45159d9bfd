"""Values that users type into settings: read one by one, with every problem told rather than the first."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from llm_pool.exceptions import with_article

__all__ = ["HIDDEN", "Invalid", "Kind", "Problem", "Reader", "count", "seconds", "switch", "text"]

HIDDEN = "(hidden)"
SETTING, UNKNOWN, TYPE, VALUE = "E001", "E002", "E003", "E004"


class Problem(NamedTuple):
    """One thing that is wrong in ``settings.LLM_POOL``.

    ``key`` is written as a path: ``LIMITS.max_connections``. ``value`` is a repr, hidden if it may be secret.
    """

    id: str
    alias: str
    key: str
    value: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class Invalid(Exception):
    """What a kind says of a value it does not take: what is wrong, and what to type instead."""

    def __init__(self, check_id: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.id = check_id
        self.what = what
        self.hint = hint


Kind = Callable[[Any], Any]
"""Takes what the user typed, and returns what it stands for. Raises ``Invalid``."""


class Reader:
    """Reads one dict of settings, and puts what is wrong into ``problems``."""

    def __init__(
        self,
        problems: list[Problem],
        alias: str,
        given: Any,
        path: tuple[str, ...] = (),
        example: str = '{"MODEL": "..."}',
    ) -> None:
        self.problems = problems
        self.alias = alias
        self.path = path
        self.given: dict[str, Any] = {}
        if isinstance(given, Mapping):
            self.given = dict(given)
        else:
            what = f"is {with_article(given)}, not a dict"
            self.report(None, Invalid(TYPE if path else SETTING, what, f"Give a dict: {example}."), HIDDEN)

    def read(
        self,
        kinds: Mapping[str, Kind],
        *,
        hide: Iterable[str] = (),
        inner: Mapping[str, Mapping[str, Kind]] | None = None,
    ) -> dict[str, Any]:
        """The good values among those given. What is not given is not there.

        ``inner`` has the kinds of the sections, for keys of theirs that were given outside.
        """
        hidden = set(hide)
        good: dict[str, Any] = {}
        for key, value in self.given.items():
            if key not in kinds:
                self.report(key, self._unknown(key, kinds, inner or {}), HIDDEN)
                continue
            try:
                good[key] = kinds[key](value)
            except Invalid as invalid:
                self.report(key, invalid, HIDDEN if key in hidden else _shown(value))
        return good

    def section(self, key: str, example: str) -> Reader:
        """A reader of the dict at ``key``, or of an empty one; ``example`` is for who gave no dict."""
        return Reader(self.problems, self.alias, self.given.get(key, {}), (*self.path, key), example)

    def report(self, key: Any, invalid: Invalid, value: str = HIDDEN) -> None:
        """``key`` None means the dict itself."""
        path = (*self.path, *([] if key is None else [key]))
        place = f"LLM_POOL[{self.alias!r}]" + "".join(f"[{_shown(step)}]" for step in path)
        shown = "" if value == HIDDEN or invalid.what.startswith(f"is {value},") else f" = {value}"
        name = ".".join(str(step) for step in path)
        self.problems.append(
            Problem(invalid.id, self.alias, name, value, f"{place}{shown} {invalid.what}.", invalid.hint)
        )

    def _unknown(
        self, key: Any, kinds: Mapping[str, Kind], inner: Mapping[str, Mapping[str, Kind]]
    ) -> Invalid:
        by_lower = {name.lower(): name for name in kinds}
        near = difflib.get_close_matches(str(key).lower(), by_lower, n=1, cutoff=0.5)
        if section := next((name for name, known in inner.items() if key in known), None):
            hint = f"It belongs inside {section!r}: {{{section!r}: {{{key!r}: ...}}}}."
        else:
            hint = f"Did you mean {by_lower[near[0]]!r}?" if near else f"The keys are {', '.join(kinds)}."
        return Invalid(UNKNOWN, "is not a known key", hint)


def count(least: int = 0, *, optional: bool = False) -> Kind:
    """A whole number from ``least`` up."""

    def kind(value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise Invalid(TYPE, f"is {with_article(value)}, not a whole number", _as_number(value, optional))
        if value < least:
            raise Invalid(VALUE, f"is less than {least}", f"Give {least} or more.")
        return value

    return kind


def seconds(*, optional: bool = True, zero: bool = False) -> Kind:
    """A duration in seconds; None, where it is allowed, for no bound."""

    def kind(value: Any) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Invalid(
                TYPE, f"is {with_article(value)}, not a number of seconds", _as_number(value, optional)
            )
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Invalid(
                VALUE, "is not a finite number", "Give None for no bound." if optional else "Give seconds."
            )
        if number < 0 or (number == 0 and not zero):
            hint = "Give seconds" + (", or None for no bound." if optional else ".")
            raise Invalid(VALUE, "is less than 0" if number < 0 else "must be greater than 0", hint)
        return number

    return kind


def switch(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise Invalid(
            TYPE, f"is {with_article(value)}, not True or False", "Give True or False, without quotes."
        )
    return value


def text(*, optional: bool = True, path: bool = False) -> Kind:
    """A string that is not empty; with ``path``, a ``pathlib.Path`` will do too."""

    def kind(value: Any) -> str | None:
        if value is None and optional:
            return None
        if path and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise Invalid(TYPE, f"is {with_article(value)}, not a string", "Give a string.")
        if not value.strip() or "\0" in value:
            raise Invalid(VALUE, "is empty" if not value.strip() else "holds a NUL", "Give a string.")
        return value

    return kind


def _as_number(value: Any, optional: bool) -> str:
    if isinstance(value, str):
        try:
            return (
                f"Write {float(value):g}, without quotes."
                if math.isfinite(float(value))
                else "Give a number."
            )
        except ValueError:
            pass
    return "Give a number, or None for no bound." if optional else "Give a number."


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
