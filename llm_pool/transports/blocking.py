"""Calls that block, made where everybody is held up by them."""

from __future__ import annotations

import warnings

from llm_pool.engine.homes.portal import is_on_server_loop

from .place import place_of_call

__all__ = ["warn_where_it_blocks"]


def warn_where_it_blocks() -> None:
    """Warns on the server's event loop, once for each place in the user's code."""
    if is_on_server_loop():
        warnings.warn(
            f"{place_of_call()} makes a call that blocks the server's event loop: nobody else is served "
            "until its end. Await acomplete(), arequest() or aclient, or iterate astream() with 'async for'.",
            RuntimeWarning,
            stacklevel=2,
        )
