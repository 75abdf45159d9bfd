"""The base class of all errors of this package."""

from __future__ import annotations

from typing import Any

import httpx

from llm_pool.redaction import printable

__all__ = ["LLMPoolError", "copy_of"]


class LLMPoolError(Exception):
    """The base class of every error that this package raises.

    An error can be made with a message alone, as mocks do. Control characters in the message are escaped,
    because a provider, a proxy or an argument may contain them.

    An error survives pickle and copy, and stores of results that make it again by
    ``type(error)(*error.args)``, as Celery does with JSON: ``args`` holds the message and what the docstring
    of the class lists first. Of its request, a pickle or a copy holds the method and the URL without
    credentials and query, and so neither the key nor the prompt.

    ``request``  the ``httpx.Request`` that failed; of an httpx error, reading it raises RuntimeError if it is
                 not set
    """

    def __init__(self, message: str = "", *, request: httpx.Request | None = None) -> None:
        # httpx's constructors are not called: some need other arguments, and they set nothing else.
        self.args = (printable(str(message)),)
        self._request = request

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "_request": _without_secrets(self._request)}


def _without_secrets(request: httpx.Request | None) -> httpx.Request | None:
    if request is None:
        return None
    return httpx.Request(request.method, request.url.copy_with(userinfo=b"", query=None, fragment=None))


def copy_of(error: LLMPoolError) -> LLMPoolError:
    """Return a copy of ``error``, with its cause but without its traceback, which belongs to one caller."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
