"""The tokens of a call, as a server counts them: whatever it sends, they can be added up."""

from __future__ import annotations

from typing import Any

from llm_pool.completions import Usage

__all__ = ["usage_of"]

_TOO_MANY = 2**53  # from here on floats, which metrics are made of, do not count exactly


def usage_of(raw: Any, read: str, written: str) -> Usage | None:
    """The usage that has these names for its counts; None where ``raw`` is no object."""
    if not isinstance(raw, dict):
        return None
    return Usage(_count(raw.get(read)), _count(raw.get(written)), raw)


def _count(value: Any) -> int:
    """A number of tokens; 0 where it is none: a count in error is no reason to lose an answer."""
    return value if type(value) is int and 0 <= value < _TOO_MANY else 0
