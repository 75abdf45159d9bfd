"""API_KEY as the settings hold it: the key, or a callable that returns it."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.exceptions import with_article
from llm_pool.redaction import Hidden

__all__ = ["Secret"]


class Secret:
    """An API key, or a callable that returns one. Its repr does not show the key.

    ``name``   the setting or environment variable that it comes from, for errors
    ``fixed``  the key, if it is not a callable's; each call of the pool reads it
    """

    __slots__ = ("_name", "_value", "fixed")

    def __init__(self, value: str | Callable[[], str], name: str = "API_KEY") -> None:
        self._value = value
        self._name = name
        self.fixed = None if callable(value) else self.reveal()

    def reveal(self) -> str:
        """Return the key. A callable is called each time, so that keys can be rotated; it may block.

        Raises ``ImproperlyConfigured``, without the key in it, if the key is not a string, is empty, or has a
        character that no HTTP header can carry. Other exceptions of a callable are passed on.
        """
        try:
            value = self._value() if callable(self._value) else self._value
        except StopIteration as error:  # asyncio futures refuse it: a caller in a task would wait for ever
            raise ImproperlyConfigured(f"{self._name} raised StopIteration.") from error
        if not isinstance(value, str):
            raise ImproperlyConfigured(
                f"{self._name} returned {with_article(value)}; it must return a string."
            )
        value = Hidden(value.strip())  # keys are read from files that end in a newline
        if not validators.is_header_value(value) or not value:
            what = "is empty" if not value else "holds a character that no HTTP header can carry"
            raise ImproperlyConfigured(f"{self._name} {what}; give the key as its provider shows it.")
        return value

    def __repr__(self) -> str:
        return "Secret('***')"
