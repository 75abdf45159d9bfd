"""Reads one dict of settings: validates all values, and collects all problems instead of the first one."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from llm_pool.exceptions import with_article

__all__ = ["HIDDEN", "Invalid", "Problem", "Reader", "Validator", "boolean", "count", "seconds", "text"]

HIDDEN = "(hidden)"
SETTING, UNKNOWN, TYPE, VALUE = "E001", "E002", "E003", "E004"  # ids of Django's checks, after "llm_pool."


class Problem(NamedTuple):
    """One problem in ``settings.LLM_POOL``.

    ``id``       the id of its Django check without the prefix "llm_pool.", such as "E003"
    ``alias``    the pool's name; "" if the problem is not in one pool
    ``key``      the path of the key, such as "LIMITS.max_connections", or the name of an environment
                 variable; "" for a whole pool or the whole setting
    ``value``    the repr of the value, or "(hidden)" if it may be secret
    ``message``  what is wrong, with the place and the value, as a sentence
    ``hint``     what to change, as a sentence
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
    """Raised by a ``Validator`` for a value that it refuses.

    ``id``    the id of the problem, such as ``TYPE`` or ``VALUE``
    ``what``  what is wrong, as a predicate such as "is empty"
    ``hint``  what to change, as a sentence
    """

    def __init__(self, check_id: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.id = check_id
        self.what = what
        self.hint = hint


Validator = Callable[[Any], Any]
"""Takes a value from the settings, and returns the value for ``PoolSettings``. Raises ``Invalid``."""


class Reader:
    """Reads one dict of settings, and appends each problem to ``problems``.

    ``problems``  the list that problems are appended to
    ``alias``     the pool's name
    ``values``    the dict; any other type is reported as a problem, and read as {}
    ``path``      the keys that lead to the dict from the pool's settings
    ``example``   an example of the dict, as text, for the hint if ``values`` is not a dict
    ``place``     the text that names the pool's settings; None for "LLM_POOL['default']"
    """

    def __init__(
        self,
        problems: list[Problem],
        alias: str,
        values: Any,
        path: tuple[str, ...] = (),
        example: str = '{"MODEL": "..."}',
        *,
        place: str | None = None,
    ) -> None:
        self.problems = problems
        self.alias = alias
        self.path = path
        self._place = f"LLM_POOL[{alias!r}]" if place is None else place
        self.values: dict[str, Any] = {}
        if isinstance(values, Mapping):
            self.values = dict(values)
        else:
            what = f"is {with_article(values)}, not a dict"
            self.report(None, Invalid(TYPE if path else SETTING, what, f"Give a dict: {example}."), HIDDEN)

    def read(
        self,
        validators: Mapping[str, Validator],
        *,
        hide: Iterable[str] = (),
        sections: Mapping[str, Mapping[str, Validator]] | None = None,
    ) -> dict[str, Any]:
        """Return the valid values by key. Report each invalid value and each unknown key as a problem.

        Keys that are not set are not in the result.

        ``validators``  one validator for each known key
        ``hide``        the keys whose values are not shown in problems
        ``sections``    the validators of the dicts inside this one, for hints about misplaced keys
        """
        hidden = set(hide)
        valid: dict[str, Any] = {}
        for key, value in self.values.items():
            if key not in validators:
                self.report(key, self._unknown(key, validators, sections or {}), HIDDEN)
                continue
            try:
                valid[key] = validators[key](value)
            except Invalid as invalid:
                self.report(key, invalid, HIDDEN if key in hidden else _shown(value))
        return valid

    def section(self, key: str, example: str) -> Reader:
        """Return a reader for the dict at ``key``, or for {} if ``key`` is not set.

        A value that is not a dict is reported as a problem, with ``example`` in its hint.
        """
        values, path = self.values.get(key, {}), (*self.path, key)
        return Reader(self.problems, self.alias, values, path, example, place=self._place)

    def report(self, key: Any, invalid: Invalid, value: str = HIDDEN) -> None:
        """Append the problem that ``invalid`` describes to ``problems``.

        ``key`` is the key with the problem; None if the problem is the dict itself. ``value`` is the repr of
        the value at ``key``, or ``HIDDEN``.
        """
        path = (*self.path, *([] if key is None else [key]))
        place = self._place + "".join(f"[{_shown(step)}]" for step in path)
        shown = "" if value == HIDDEN or invalid.what.startswith(f"is {value},") else f" = {value}"
        name = ".".join(str(step) for step in path)
        self.problems.append(
            Problem(invalid.id, self.alias, name, value, f"{place}{shown} {invalid.what}.", invalid.hint)
        )

    def _unknown(
        self,
        key: Any,
        validators: Mapping[str, Validator],
        sections: Mapping[str, Mapping[str, Validator]],
    ) -> Invalid:
        by_lower = {name.lower(): name for name in validators}
        close = difflib.get_close_matches(str(key).lower(), by_lower, n=1, cutoff=0.5)
        if section := next((name for name, keys in sections.items() if key in keys), None):
            hint = f"It belongs inside {section!r}: {{{section!r}: {{{key!r}: ...}}}}."
        elif close:
            hint = f"Did you mean {by_lower[close[0]]!r}?"
        else:
            hint = f"The keys are {', '.join(validators)}."
        return Invalid(UNKNOWN, "is not a known key", hint)


def count(least: int = 0, *, optional: bool = False) -> Validator:
    """Return a validator for whole numbers of at least ``least``.

    With ``optional``, None is valid too, and means no limit.
    """

    def validate(value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise Invalid(
                TYPE, f"is {with_article(value)}, not a whole number", _number_hint(value, optional)
            )
        if value < least:
            raise Invalid(VALUE, f"is less than {least}", f"Give {least} or more.")
        return value

    return validate


def seconds(*, optional: bool = True, zero: bool = False) -> Validator:
    """Return a validator for durations in seconds, finite and greater than 0.

    With ``optional``, None is valid too, and means no limit. With ``zero``, 0 is valid too.
    """

    def validate(value: Any) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = f"is {with_article(value)}, not a number of seconds"
            raise Invalid(TYPE, what, _number_hint(value, optional))
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            hint = "Give None for no limit." if optional else "Give seconds."
            raise Invalid(VALUE, "is not a finite number", hint)
        if number < 0 or (number == 0 and not zero):
            hint = "Give seconds" + (", or None for no limit." if optional else ".")
            raise Invalid(VALUE, "is less than 0" if number < 0 else "must be greater than 0", hint)
        return number

    return validate


def boolean(value: Any) -> bool:
    """Return ``value``. Raises ``Invalid`` if it is neither True nor False."""
    if not isinstance(value, bool):
        raise Invalid(
            TYPE, f"is {with_article(value)}, not True or False", "Give True or False, without quotes."
        )
    return value


def text(*, path: bool = False) -> Validator:
    """Return a validator for strings that are not blank and contain no NUL. None is valid too.

    With ``path``, a ``pathlib.Path`` is valid too, and becomes a string.
    """

    def validate(value: Any) -> str | None:
        if value is None:
            return None
        if path and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise Invalid(TYPE, f"is {with_article(value)}, not a string", "Give a string.")
        if not value.strip() or "\0" in value:
            raise Invalid(VALUE, "is empty" if not value.strip() else "holds a NUL", "Give a string.")
        return value

    return validate


def _number_hint(value: Any, optional: bool) -> str:
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
            return f"Write {number:g}, without quotes." if math.isfinite(number) else "Give a number."
    return "Give a number, or None for no limit." if optional else "Give a number."


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
