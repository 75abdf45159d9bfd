"""Where the bytes of an answer come from: the engine, or an httpx response."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Protocol

import httpx

from llm_pool.engine.errors import LLMPoolError, PoolClosed
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.homes.home import Home
from llm_pool.engine.request import Headers, Marks
from llm_pool.providers.base import Head
from llm_pool.transports.body import AsyncBody, Body
from llm_pool.transports.errors import adopted, public

__all__ = ["AsyncHTTPXSource", "HTTPXSource", "HeaderView", "Source", "StraightSource"]


class Source(Protocol):
    """A response whose body is still coming. ``read`` and ``aread`` give ``b""`` at its end."""

    head: Head

    @property
    def marks(self) -> Marks | None: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...
    def suffice(self) -> None: ...
    def leave(self) -> None: ...
    def soon(self, function: Callable[[], object]) -> None: ...
    async def aleave(self) -> None: ...


class StraightSource:
    """An exchange of the engine, read from a thread or from any event loop."""

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self.head = head
        self.marks = exchange.marks

    async def aread(self) -> bytes:
        """What has come since the last read."""
        try:
            return await self._exchange.home.arun(self._exchange.read)
        except LLMPoolError as error:
            raise public(error) from error.__cause__

    def read(self) -> bytes:
        """``aread`` for a plain thread."""
        try:
            return self._exchange.home.run(self._exchange.read)
        except LLMPoolError as error:
            raise public(error) from error.__cause__

    def suffice(self) -> None:
        """What has come is all that matters: whoever leaves now gives nothing up."""
        self._exchange.satisfied = True

    def leave(self) -> None:
        """Free the connection. From any thread, any number of times."""
        self._exchange.leave()

    async def aleave(self) -> None:
        """``leave``, and where this is the connection's own loop it knows at once. Does not wait."""
        if self._exchange.home.is_here:
            self._exchange.close()
        else:
            self._exchange.leave()

    def soon(self, function: Callable[[], object]) -> None:
        """For finalizers: call ``function``, but not in the middle of whatever was interrupted."""
        _post(self._exchange.home, function)


class HTTPXSource:
    """A streamed response of an ``httpx.Client``."""

    def __init__(self, response: httpx.Response, secrets: tuple[str, ...]) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_bytes()
        self.head = Head(response.status_code, response.headers, secrets)
        self.marks: Marks | None = response.extensions.get("llm_pool_marks")

    def read(self) -> bytes:
        """See ``Source``."""
        with adopted():
            return next(self._pieces, b"")

    async def aread(self) -> bytes:
        """Read in a thread: whoever looks on at a sync client may block."""
        return await asyncio.to_thread(self.read)

    def suffice(self) -> None:
        """See ``StraightSource``."""
        _suffice(self._response)

    def leave(self) -> None:
        """See ``Source``."""
        self._response.close()

    async def aleave(self) -> None:
        """See ``Source``."""
        await asyncio.to_thread(self.leave)

    def soon(self, function: Callable[[], object]) -> None:
        """See ``StraightSource``."""
        _soon(self._response, function)


class AsyncHTTPXSource:
    """A streamed response of an ``httpx.AsyncClient``. Read by tasks only."""

    def __init__(self, response: httpx.Response, secrets: tuple[str, ...]) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self.head = Head(response.status_code, response.headers, secrets)
        self.marks: Marks | None = response.extensions.get("llm_pool_marks")

    async def aread(self) -> bytes:
        """See ``Source``."""
        with adopted():
            return await anext(self._pieces, b"")

    def read(self) -> bytes:
        """An async response cannot be read by a thread."""
        raise RuntimeError("this stream was begun by a task; read it with 'async for'")

    def suffice(self) -> None:
        """See ``StraightSource``."""
        _suffice(self._response)

    def leave(self) -> None:
        """See ``Source``. Our own transport's responses are freed at once, others when they are collected."""
        body = _body(self._response)
        if body is not None:
            body.leave()

    async def aleave(self) -> None:
        """Close the response, whosesoever it is."""
        await self._response.aclose()

    def soon(self, function: Callable[[], object]) -> None:
        """See ``StraightSource``."""
        _soon(self._response, function)


class HeaderView(Mapping[str, str]):
    """Raw headers looked up by lower-case name, without a copy: of most answers one or two are ever read."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Headers) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.encode("latin-1")
        size = len(wanted)
        for key, value in self._raw:
            if len(key) == size and key.lower() == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1").lower() for key, _ in self._raw))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _post(home: Home, function: Callable[[], object]) -> None:
    with contextlib.suppress(PoolClosed):  # the process is about to end
        home.post(function)


def _soon(response: httpx.Response, function: Callable[[], object]) -> None:
    """A response that is not our own transport's, but a mock's, has no home to go to."""
    body = _body(response)
    if body is None:
        function()
    else:
        _post(body.home, function)


def _suffice(response: httpx.Response) -> None:
    body = _body(response)
    if body is not None:
        body.suffice()


def _body(response: httpx.Response) -> Body | AsyncBody | None:
    body: Body | AsyncBody | None = response.extensions.get("llm_pool_body")
    return body
