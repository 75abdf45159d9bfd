"""The engine as an ``httpx.AsyncBaseTransport``."""

from __future__ import annotations

from collections.abc import AsyncIterable

import httpcore
import httpx

from llm_pool.engine.config import Timeouts
from llm_pool.engine.errors import LLMPoolError
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.pool import Pool

from .body import AsyncBody
from .errors import public
from .hook_points import ASYNC_POOL, are_stock
from .passage import Passage
from .translation import to_engine, to_httpcore

__all__ = ["AsyncTransport"]


class AsyncTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport with the engine in place of its pool, at the pool's interface.

    ``handle_async_request`` is inherited, so whatever hooks into httpx or httpcore, by class, works here.
    Closing the transport leaves the engine's pool as it is: it belongs to more than this client.
    """

    def __init__(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        self._pool = _EnginePool(pool, timeouts or pool.config.timeouts)


class _EnginePool(httpcore.AsyncConnectionPool):
    """httpcore's pool to those who look; what comes through it goes to the engine."""

    def __init__(self, pool: Pool, timeouts: Timeouts) -> None:
        super().__init__()
        self._engine = pool
        self._timeouts = timeouts

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        if not are_stock((ASYNC_POOL,)):  # a mock (respx) or instrumentation is hooked into httpcore
            return await httpcore.AsyncConnectionPool.handle_async_request(self, request)
        return await send(self._engine, request, self._timeouts)

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """See ``Passage``."""
        return _Passage(self._engine, self._timeouts, origin)


class _Passage(Passage, httpcore.AsyncConnectionInterface):
    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        return await send(self._engine, request, self._timeouts)

    async def aclose(self) -> None:
        """Nothing is held here."""


async def send(pool: Pool, request: httpcore.Request, timeouts: Timeouts) -> httpcore.Response:
    """Send through the engine; the caller's own body is read here, in the caller's own context."""
    outgoing = to_engine(request, timeouts)
    try:
        exchange = await pool.open(outgoing)
        if outgoing.body is None:
            assert isinstance(request.stream, AsyncIterable)
            await _upload(exchange, request.stream)
    except LLMPoolError as error:
        raise public(error) from error.__cause__
    return to_httpcore(exchange, AsyncBody)


async def _upload(exchange: Exchange, stream: AsyncIterable[bytes]) -> None:
    home = exchange.home
    try:
        async for data in stream:
            if not await home.arun(exchange.write, data):
                break
        await home.arun(exchange.finish)
        await home.arun(exchange.head)
    except BaseException:
        exchange.leave()
        raise
