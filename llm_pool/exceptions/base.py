"""The base class of all errors of this package."""

from __future__ import annotations

__all__ = ["LLMPoolError", "copy_of"]


class LLMPoolError(Exception):
    """The base class of every error that this package raises."""


def copy_of(error: LLMPoolError) -> LLMPoolError:
    """Return a copy of ``error``, whose class takes only a text: a traceback belongs to one caller."""
    copy = type(error)(str(error))
    copy.__cause__ = error.__cause__
    return copy
