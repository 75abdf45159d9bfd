"""Parses durations as providers write them: "6m0s", "12ms", "45.8s", "20 seconds"."""

from __future__ import annotations

import re

__all__ = ["seconds_of"]

_SECONDS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]+)\s*")


def seconds_of(text: str) -> float | None:
    """Return the seconds in ``text``, one or more numbers with units; None if it begins otherwise."""
    text = text.strip().lower()
    seconds, end = 0.0, 0
    while end < len(text):
        part = _PART.match(text, end)
        unit = _SECONDS.get(part[2]) or _SECONDS.get(part[2].removesuffix("s")) if part else None
        if part is None or unit is None:
            return seconds if end else None
        seconds += float(part[1]) * unit
        end = part.end()
    return seconds if end else None
