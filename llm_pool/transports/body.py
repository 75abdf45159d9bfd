"""The rest of a response, for httpx to read."""

from __future__ import annotations

import warnings
from typing import Self

from llm_pool.engine.errors import LLMPoolError
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.homes.home import Home

from .errors import public
from .place import place_of_call

__all__ = ["AsyncBody", "Body"]


class _Held:
    """Its connection is freed however it ends: read out, closed, cancelled, failed or garbage-collected."""

    _left = False
    _opened_at = "an unknown place"

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._opened_at = place_of_call()

    @property
    def home(self) -> Home:
        """Where its connection lives."""
        return self._exchange.home

    def suffice(self) -> None:
        """What has come is all that matters: whoever leaves now gives nothing up."""
        self._exchange.satisfied = True

    def leave(self) -> None:
        """Free the connection, without waiting for it. From any thread, any number of times."""
        self._left = True
        self._exchange.leave()

    def __del__(self) -> None:
        exchange = self._exchange
        if self._left or exchange.complete or exchange.error is not None:
            return
        exchange.leave()  # first: where warnings are errors the next line raises
        message = f"a response that was opened at {self._opened_at} was neither read to its end nor closed"
        warnings.warn(message, ResourceWarning, source=self, stacklevel=2)


class Body(_Held):
    """Read by a thread, piece by piece."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            data = exchange.home.run(exchange.read)
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        except BaseException:
            self.leave()
            raise
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """``leave``, as httpx calls it."""
        self.leave()


class AsyncBody(_Held):
    """Read piece by piece from any event loop."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        try:
            data = await exchange.home.arun(exchange.read)
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        except BaseException:
            self.leave()
            raise
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """``leave``, as httpx calls it."""
        self.leave()
