"""The names of the engines."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["ENGINES", "missing_extra"]

ENGINES = ("native", "httpcore", "aiohttp")


def missing_extra(engine: str) -> str | None:
    """The extra of this distribution that is yet to be installed for an engine, if any."""
    return "aiohttp" if engine == "aiohttp" and find_spec("aiohttp") is None else None
