"""The value of API_KEY: a key, or a callable that returns a key."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.exceptions import with_article
from llm_pool.redaction import Hidden

__all__ = ["Secret"]


class Secret:
    """An API key, or a callable that returns an API key. The repr does not show the key.

    ``value``  the key or the callable; a key that is not valid raises ``ImproperlyConfigured``
    ``name``   the setting or environment variable that the key comes from; errors name it
    ``fixed``  the key; None if a callable returns it
    """

    __slots__ = ("_name", "_value", "fixed")

    def __init__(self, value: str | Callable[[], str], name: str = "API_KEY") -> None:
        self._value = value
        self._name = name
        self.fixed = None if callable(value) else self.reveal()

    def reveal(self) -> str:
        """Return the key, without white space around it.

        A callable is called each time, so that keys can be rotated. The callable can block.

        Raises ``ImproperlyConfigured`` if the key is not a string, is empty, or has a character that no HTTP
        header can carry. The error's text does not contain the key. A StopIteration from the callable becomes
        ``ImproperlyConfigured`` too; other exceptions from the callable are not caught.
        """
        try:
            value = self._value() if callable(self._value) else self._value
        except StopIteration as error:  # asyncio futures do not accept it: a task would wait forever
            raise ImproperlyConfigured(f"{self._name} raised StopIteration.") from error
        if not isinstance(value, str):
            raise ImproperlyConfigured(
                f"{self._name} returned {with_article(value)}; it must return a string."
            )
        value = Hidden(value.strip())  # a key that was read from a file often ends with a newline
        if not validators.is_header_value(value) or not value:
            what = "is empty" if not value else "holds a character that no HTTP header can carry"
            raise ImproperlyConfigured(f"{self._name} {what}; give the key as its provider shows it.")
        return value

    def __repr__(self) -> str:
        return "Secret('***')"
