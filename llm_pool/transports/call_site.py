"""Finds the line of the user's code that made a call, for warnings."""

from __future__ import annotations

import sys
import warnings

from llm_pool.engine.loops.portal import is_on_server_loop

__all__ = ["call_site", "warn_if_blocking"]

_LIBRARIES = {"llm_pool", "httpx", "httpcore"}


def call_site() -> str:
    """Return "file:line" of the innermost frame outside this package, httpx and httpcore."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def warn_if_blocking() -> None:
    """Emit a RuntimeWarning if the calling code runs on the server loop.

    By default Python shows the warning once for each line of the user's code that makes a blocking call.
    """
    if is_on_server_loop():
        warnings.warn(
            f"{call_site()} makes a call that blocks the server's event loop: no other request is served "
            "until its end. Await acomplete(), arequest() or aclient, or iterate astream() with 'async for'.",
            RuntimeWarning,
            stacklevel=2,
        )
