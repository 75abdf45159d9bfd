"""httpx transports that send through a pool: ``AsyncTransport`` and, for sync clients, ``Transport``.

Each is a subclass of httpx's own transport. In place of httpcore's pool it has an object with the same
interface that sends through the engine. So mocks and instrumentation that replace methods of httpx's or
httpcore's classes work here too.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

import httpcore
import httpx

from llm_pool.engine.config import Timeouts
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.pool import Pool

from .body import AsyncBody, Body
from .call_site import warn_if_blocking
from .collecting import limit_collected
from .hooks import ASYNC_POOL, SYNC_POOL
from .translation import to_engine, to_httpcore

__all__ = ["AsyncTransport", "Transport"]


class AsyncTransport(httpx.AsyncHTTPTransport):
    """An ``httpx.AsyncHTTPTransport`` that sends through the engine's pool.

    ``timeouts``: for requests without timeouts; its ``total`` applies to all requests. None for the pool's
    timeouts. Closing the transport does nothing: other clients share the pool.
    """

    def __init__(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        self.rebind(pool, timeouts)

    def rebind(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        """Send through ``pool`` from now on. Can be called at any time, from any thread."""
        self._pool = _AsyncEnginePool(pool, timeouts or pool.config.timeouts)
        self._max_answer_bytes = pool.config.limits.max_answer_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx.AsyncHTTPTransport.handle_async_request``."""
        response = await super().handle_async_request(request)
        return limit_collected(response, request, self._max_answer_bytes)


class Transport(httpx.HTTPTransport):
    """An ``httpx.HTTPTransport`` that sends through the engine's pool, on the portal.

    Blocks the caller's thread. ``timeouts``: for requests without timeouts; its ``total`` applies to all
    requests. None for the pool's timeouts. Closing the transport does nothing: other clients share the pool.
    """

    def __init__(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        self.rebind(pool, timeouts)

    def rebind(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        """Send through ``pool`` from now on. Can be called at any time, from any thread."""
        self._pool = _EnginePool(pool, timeouts or pool.config.timeouts)
        self._max_answer_bytes = pool.config.limits.max_answer_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx.HTTPTransport.handle_request``."""
        return limit_collected(super().handle_request(request), request, self._max_answer_bytes)


class _AsyncEnginePool(httpcore.AsyncConnectionPool):
    """Has the interface of httpcore's pool, and sends the requests through the engine."""

    def __init__(self, pool: Pool, timeouts: Timeouts) -> None:
        super().__init__()
        self._engine = pool
        self._timeouts = timeouts

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        if not ASYNC_POOL.are_original():  # replaced by a mock (respx) or by instrumentation
            return await httpcore.AsyncConnectionPool.handle_async_request(self, request)
        return await _asend(self._engine, request, self._timeouts)

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """Return a connection of httpcore that sends through the engine.

        httpcore's own ``handle_async_request`` calls this, if a mock passes a request on.
        """
        return _AsyncHTTPCoreConnection(self._engine, self._timeouts, origin)


class _EnginePool(httpcore.ConnectionPool):
    def __init__(self, pool: Pool, timeouts: Timeouts) -> None:
        super().__init__()
        self._engine = pool
        self._timeouts = timeouts

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        if not SYNC_POOL.are_original():
            return httpcore.ConnectionPool.handle_request(self, request)
        return _send(self._engine, request, self._timeouts)

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        return _HTTPCoreConnection(self._engine, self._timeouts, origin)


class _AlwaysOpen:
    """Represents the engine as a connection of httpcore that is always open and always available."""

    def __init__(self, pool: Pool, timeouts: Timeouts, origin: httpcore.Origin) -> None:
        self._engine = pool
        self._timeouts = timeouts
        self._origin = origin

    def info(self) -> str:
        return f"llm_pool, {self._origin}"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False


class _AsyncHTTPCoreConnection(_AlwaysOpen, httpcore.AsyncConnectionInterface):
    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        return await _asend(self._engine, request, self._timeouts)

    async def aclose(self) -> None:
        """Do nothing: the connections belong to the engine."""


class _HTTPCoreConnection(_AlwaysOpen, httpcore.ConnectionInterface):
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        return _send(self._engine, request, self._timeouts)

    def close(self) -> None:
        """Do nothing: the connections belong to the engine."""


async def _asend(pool: Pool, request: httpcore.Request, timeouts: Timeouts) -> httpcore.Response:
    """Send ``request`` through the engine, and return the response when its head has arrived.

    A request body that follows piece by piece is read here, in the caller's task.
    """
    outgoing = to_engine(request, timeouts)
    exchange = await pool.open(outgoing)
    if outgoing.body is None:
        assert isinstance(request.stream, AsyncIterable)
        await _aupload(exchange, request.stream)
    return to_httpcore(exchange, AsyncBody)


def _send(pool: Pool, request: httpcore.Request, timeouts: Timeouts) -> httpcore.Response:
    warn_if_blocking()
    outgoing = to_engine(request, timeouts)
    exchange = pool.open_sync(outgoing)
    if outgoing.body is None:
        assert isinstance(request.stream, Iterable)
        _upload(exchange, request.stream)
    return to_httpcore(exchange, Body)


async def _aupload(exchange: Exchange, stream: AsyncIterable[bytes]) -> None:
    host_loop = exchange.host_loop
    try:
        async for data in stream:
            if not await host_loop.arun(exchange.write, data):
                break
        await host_loop.arun(exchange.finish)
        await host_loop.arun(exchange.head)
    except BaseException:
        exchange.close_threadsafe()
        raise


def _upload(exchange: Exchange, stream: Iterable[bytes]) -> None:
    host_loop = exchange.host_loop
    try:
        for data in stream:
            if not host_loop.run(exchange.write, data):
                break
        host_loop.run(exchange.finish)
        host_loop.run(exchange.head)
    except BaseException:
        exchange.close_threadsafe()
        raise
