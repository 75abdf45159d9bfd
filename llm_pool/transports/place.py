"""Where in the user's code a call was made."""

from __future__ import annotations

import sys

__all__ = ["place_of_call"]

_BETWEEN = {"llm_pool", "httpx", "httpcore"}


def place_of_call() -> str:
    """File and line: the first frame outside this package, and outside what it is called through."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
