"""Send a call through the engine, or through httpx if mocks or instrumentation are installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_pool.calling.answers import Answer, Source
from llm_pool.calling.through_httpx import ThroughHTTPX
from llm_pool.exceptions import LLMPoolError, PoolClosed
from llm_pool.providers.base import Head, HeaderView
from llm_pool.transports.call_site import warn_if_blocking
from llm_pool.transports.clients import is_unhooked
from llm_pool.transports.translation import content_coding

if TYPE_CHECKING:
    from llm_pool.conf import PoolSettings
    from llm_pool.conf.request_builder import RequestBuilder
    from llm_pool.engine.exchange import Exchange
    from llm_pool.engine.pool import Pool
    from llm_pool.engine.request import Headers, Marks, WholeResponse
    from llm_pool.engine.scope import CancelScope

__all__ = ["Sender"]


class Sender:
    """Sends the POSTs of one pool. ``marks`` are those of the call: the engine writes them."""

    def __init__(
        self, settings: PoolSettings, engine: Pool, builder: RequestBuilder, through_httpx: ThroughHTTPX
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._builder = builder
        self._through_httpx = through_httpx

    async def afetch(self, path: str, body: bytes, marks: Marks) -> Answer:
        """POST ``body`` and read the whole answer."""
        key = await self._settings.akey()
        if not is_unhooked(self._through_httpx.aclient):
            return await self._through_httpx.afetch(path, body, key, marks)
        return self._answer(await self._engine.fetch(self._builder.post(path, body, key, marks)), key)

    def fetch(self, path: str, body: bytes, marks: Marks) -> Answer:
        """``afetch`` for a plain thread."""
        key = self._settings.key()
        if not is_unhooked(self._through_httpx.client):
            return self._through_httpx.fetch(path, body, key, marks)
        warn_if_blocking()
        return self._answer(self._engine.fetch_sync(self._builder.post(path, body, key, marks)), key)

    async def aopen(self, path: str, body: bytes, marks: Marks, scope: CancelScope) -> Source:
        """POST ``body`` and wait for the head of the answer, or until ``scope`` is cancelled."""
        key = await self._settings.akey()
        if not is_unhooked(self._through_httpx.aclient):
            return await self._through_httpx.aopen(path, body, key, marks, scope)
        return self._source(await self._engine.open(self._builder.post(path, body, key, marks, scope)), key)

    def open(self, path: str, body: bytes, marks: Marks, scope: CancelScope) -> Source:
        """``aopen`` for a plain thread."""
        key = self._settings.key()
        if not is_unhooked(self._through_httpx.client):
            return self._through_httpx.open(path, body, key, marks, scope)
        warn_if_blocking()
        return self._source(self._engine.open_sync(self._builder.post(path, body, key, marks, scope)), key)

    def _answer(self, whole: WholeResponse, key: str | None) -> Answer:
        return Answer(self._head(whole.status, whole.headers, key), whole.body)

    def _source(self, exchange: Exchange, key: str | None) -> Source:
        try:
            return DirectSource(exchange, self._head(exchange.status, exchange.headers, key))
        except LLMPoolError:
            exchange.close_threadsafe()
            raise

    def _head(self, status: int, headers: Headers, key: str | None) -> Head:
        """Raises InvalidResponse, or the error of its status, for a compressed body: none was asked for."""
        head = Head(status, HeaderView(headers), self._settings.secrets(key))
        coding = content_coding(headers)
        if not coding:
            return head
        what = f"a body compressed by {coding!r}, although the request did not accept that"
        if 200 <= status < 300:
            raise self._settings.provider.invalid_response(head, what, b"")
        raise self._settings.provider.error_from_response(head, what.encode())


class DirectSource:
    """An exchange of the engine as a ``Source``."""

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self.head = head

    async def aread(self) -> bytes:
        """See ``Source``."""
        return await self._exchange.host_loop.arun(self._exchange.read)

    def read(self) -> bytes:
        """See ``Source``."""
        return self._exchange.host_loop.run(self._exchange.read)

    def mark_complete(self) -> None:
        """See ``Source``."""
        self._exchange.is_complete_enough = True

    def close(self) -> None:
        """See ``Source``."""
        self._exchange.close_threadsafe()

    async def aclose(self) -> None:
        """See ``Source``."""
        if self._exchange.host_loop.is_current:
            self._exchange.close()
        else:
            self._exchange.close_threadsafe()

    def call_soon(self, function: Callable[[], object]) -> None:
        """See ``Source``."""
        with contextlib.suppress(PoolClosed):  # the process is about to end
            self._exchange.host_loop.post(function)
