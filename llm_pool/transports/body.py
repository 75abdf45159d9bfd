"""The bodies of responses, which httpx reads."""

from __future__ import annotations

import warnings
from typing import Self

from llm_pool.engine.exchange import Exchange
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.exceptions import LLMPoolError

from .call_site import call_site

__all__ = ["AsyncBody", "Body"]


class _BaseBody:
    """Releases the connection when the body is read to its end, closed, failed or garbage-collected."""

    _closed = False
    _call_site = "an unknown place"

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._call_site = call_site()

    @property
    def host_loop(self) -> HostLoop:
        """The event loop of the connection."""
        return self._exchange.host_loop

    def mark_complete(self) -> None:
        """Treat the response as complete: closing it now is not a cancellation."""
        self._exchange.is_complete_enough = True

    def close(self) -> None:
        """Release the connection and return at once. Can be called from any thread, and more than once."""
        self._closed = True
        self._exchange.close_threadsafe()

    def __del__(self) -> None:
        exchange = self._exchange
        if self._closed or exchange.complete or exchange.error is not None:
            return
        exchange.close_threadsafe()  # before the warning, which raises if warnings are errors
        message = f"a response that was opened at {self._call_site} was neither read to its end nor closed"
        warnings.warn(message, ResourceWarning, source=self, stacklevel=2)


class Body(_BaseBody):
    """The body for ``httpx.Client``: a thread reads it piece by piece."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            data = exchange.host_loop.run(exchange.read)
        except LLMPoolError:
            raise
        except BaseException:
            self.close()
            raise
        if not data:
            raise StopIteration
        return data


class AsyncBody(_BaseBody):
    """The body for ``httpx.AsyncClient``: a task on any event loop reads it piece by piece."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        try:
            data = await exchange.host_loop.arun(exchange.read)
        except LLMPoolError:
            raise
        except BaseException:
            self.close()
            raise
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """``close``, under the name that httpx uses."""
        self.close()
