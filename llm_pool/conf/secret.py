"""The value of API_KEY: a key, or a function, sync or async, that returns a key."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.engine.loops.host_loop import running_loop
from llm_pool.engine.loops.threads import in_thread
from llm_pool.exceptions import with_article
from llm_pool.redaction import Hidden

__all__ = ["Secret"]


class Secret:
    """An API key, or a callable that returns an API key. The repr does not show the key.

    ``value``  the key, or a callable that returns the key or an awaitable of it; a key that is not valid
               raises ``ImproperlyConfigured``
    ``name``   the setting or environment variable that the key comes from; errors name it
    ``fixed``  the key; None if a callable returns it
    """

    __slots__ = ("_name", "_value", "fixed")

    def __init__(
        self, value: str | Callable[[], str] | Callable[[], Awaitable[str]], name: str = "API_KEY"
    ) -> None:
        self._value = value
        self._name = name
        self.fixed = None if callable(value) else self._checked(value)

    def reveal(self) -> str:
        """Return the key, without white space around it.

        A callable is called each time, so that keys can be rotated. The callable can block. An async one runs
        as by ``async_to_sync``; if this thread runs an event loop, which blocks, on a thread of its own.

        Raises ``ImproperlyConfigured`` if the key is not a string, is empty, or has a character that no HTTP
        header can carry. The error's text does not contain the key. A StopIteration from the callable becomes
        ``ImproperlyConfigured`` too; other exceptions from the callable are not caught.
        """
        value = self._call()
        return self._checked(_wait_for(value) if inspect.isawaitable(value) else value)

    async def areveal(self) -> str:
        """``reveal`` for async code. An async callable runs in the caller's task, any other in a thread.

        Raises UnsupportedEventLoop if no event loop of asyncio is running.
        """
        is_async = iscoroutinefunction(self._value) or iscoroutinefunction(type(self._value).__call__)
        running_loop()  # raises a clear error under trio
        value = self._call() if is_async else await sync_to_async(self._call)()
        return self._checked(await value if inspect.isawaitable(value) else value)

    def _call(self) -> Any:
        try:
            return self._value() if callable(self._value) else self._value
        except StopIteration as error:  # asyncio futures do not accept it: a task would wait forever
            raise ImproperlyConfigured(f"{self._name} raised StopIteration.") from error

    def _checked(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ImproperlyConfigured(
                f"{self._name} returned {with_article(value)}; it must return a string."
            )
        key = Hidden(value.strip())  # a key that was read from a file often ends with a newline
        if not validators.is_header_value(key) or not key:
            what = "is empty" if not key else "holds a character that no HTTP header can carry"
            raise ImproperlyConfigured(f"{self._name} {what}; give the key as its provider shows it.")
        return key

    def __repr__(self) -> str:
        return "Secret('***')"


def _wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait for ``awaitable``, and return its result. Blocks the thread."""

    async def wait() -> Any:
        return await awaitable

    if asyncio._get_running_loop() is None:
        return async_to_sync(wait)()
    return in_thread(contextvars.copy_context().run, asyncio.run, wait()).wait()
