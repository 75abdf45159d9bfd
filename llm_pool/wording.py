"""How errors word what they found."""

from __future__ import annotations

from typing import Any

__all__ = ["a"]


def a(value: Any) -> str:
    """The type of a value with its article: "a str", "an int"; "None" for itself."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
