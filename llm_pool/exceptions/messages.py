"""The words of errors: for visitors of a site, and parts of messages."""

from __future__ import annotations

import os
from typing import Any

from llm_pool.exceptions.answers import Overloaded, RateLimited, StreamInterrupted
from llm_pool.exceptions.calls import PoolTimeout

__all__ = ["BUSY", "in_parentheses", "reason", "visitor_message", "with_article"]

BUSY = "Too many requests are waiting for the model. Please try again in a few seconds."


def visitor_message(error: Exception) -> str:
    """Return a sentence about ``error`` that can be shown to visitors of a site.

    The error's own message is not for visitors: it can describe the provider, the network and the pool.
    """
    if isinstance(error, PoolTimeout):
        return BUSY
    if isinstance(error, RateLimited | Overloaded):
        return "The model has too many requests. Please try again later."
    if isinstance(error, StreamInterrupted):
        return "The answer broke off. Please try again."
    return "The model gave no answer. Please try again later."


def reason(error: Exception) -> str:
    """Return the system's text for an ``errno``, without addresses; otherwise the error's text, or class."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def in_parentheses(error: BaseException | None) -> str:
    """Return the class and the text of ``error`` to end a message with, " (OSError: ...)"; "" for None."""
    return f" ({type(error).__name__}: {error})" if error is not None else ""


def with_article(value: Any) -> str:
    """Return the type of ``value`` with an article, for a message: "a str", "an int"; "None" for None."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
