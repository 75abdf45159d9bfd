"""Texts in a provider's answer, whose JSON can have anything in their place."""

from __future__ import annotations

from typing import Any

__all__ = ["repair_surrogates", "text_or_empty", "text_or_none"]


def repair_surrogates(text: str) -> str:
    """Join the halves of surrogate pairs in ``text``, and replace a half without its other half by U+FFFD.

    JSON can contain such halves as escapes (RFC 8259, section 8.2); UTF-8 cannot encode them.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def text_or_empty(value: Any) -> str:
    """Return ``value`` if it is a str; otherwise "", as if the answer did not have it."""
    return value if isinstance(value, str) else ""


def text_or_none(value: Any) -> str | None:
    """Return ``value`` if it is a str with text, otherwise None."""
    return value if value and type(value) is str else None
