"""The bodies of responses, as httpx reads them."""

from __future__ import annotations

import warnings
from typing import Self

from llm_pool.engine.exchange import Exchange
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.exceptions import LLMPoolError

from .call_site import call_site

__all__ = ["AsyncBody", "Body"]


class _BaseBody:
    """The body of a response.

    The connection is released when the body is read to its end, is closed, fails or is garbage-collected. A
    body that is garbage-collected before its end, without a close or an error, emits a ResourceWarning.
    """

    _closed = False
    _call_site = "an unknown place"

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._call_site = call_site()

    @property
    def host_loop(self) -> HostLoop:
        """The event loop that hosts the connection of the response."""
        return self._exchange.host_loop

    def mark_complete(self) -> None:
        """Treat the response as complete: closing it now is not a cancellation."""
        self._exchange.is_complete_enough = True

    def close(self) -> None:
        """Close the response. Returns at once; the connection is released later, on its host loop.

        Can be called from any thread, and more than once.
        """
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
    """The body of a response for ``httpx.Client``. Each step of the iteration blocks the calling thread."""

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
    """The body of a response for ``httpx.AsyncClient``. Can be iterated on any event loop."""

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
        """Do the same as ``close``. httpx calls this method."""
        self.close()
