"""An API key as the settings hold it."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.exceptions import with_article
from llm_pool.redaction import Hidden

__all__ = ["Secret"]


class Secret:
    """An API key, or a callable that fetches one. No repr shows it."""

    __slots__ = ("_place", "_value")

    def __init__(self, value: str | Callable[[], str], place: str = "API_KEY") -> None:
        self._value = value
        self._place = place

    @property
    def is_fetched(self) -> bool:
        """Whether a callable is asked for it."""
        return callable(self._value)

    def reveal(self) -> str:
        """The key. A callable is asked each time, so that keys can be rotated; it may block.

        Raises ``ImproperlyConfigured`` for a key that no header can carry, without showing it.
        """
        try:
            value = self._value() if callable(self._value) else self._value
        except StopIteration as error:  # no future takes it: whoever waited for the key would wait for ever
            raise ImproperlyConfigured(f"{self._place} raised StopIteration.") from error
        if not isinstance(value, str):
            raise ImproperlyConfigured(f"{self._place} gave {with_article(value)}; let it return a string.")
        value = Hidden(value.strip())  # keys are read from files that end in a newline
        if not validators.is_header_value(value) or not value:
            what = "is empty" if not value else "holds a character that no HTTP header can carry"
            raise ImproperlyConfigured(f"{self._place} {what}; give the key as its provider shows it.")
        return value

    def __repr__(self) -> str:
        return "Secret('***')"
