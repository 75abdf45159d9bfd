"""The engine as an ``httpx.BaseTransport``, for threads. Its connections live on the portal."""

from __future__ import annotations

from collections.abc import Iterable

import httpcore
import httpx

from llm_pool.engine.config import Timeouts
from llm_pool.engine.errors import LLMPoolError
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.pool import Pool

from .blocking import warn_where_it_blocks
from .body import Body
from .errors import public
from .hook_points import SYNC_POOL, are_stock
from .passage import Passage
from .translation import to_engine, to_httpcore

__all__ = ["Transport"]


class Transport(httpx.HTTPTransport):
    """``AsyncTransport`` for ``httpx.Client``."""

    def __init__(self, pool: Pool, timeouts: Timeouts | None = None) -> None:
        self._pool = _EnginePool(pool, timeouts or pool.config.timeouts)


class _EnginePool(httpcore.ConnectionPool):
    def __init__(self, pool: Pool, timeouts: Timeouts) -> None:
        super().__init__()
        self._engine = pool
        self._timeouts = timeouts

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        if not are_stock((SYNC_POOL,)):
            return httpcore.ConnectionPool.handle_request(self, request)
        return send(self._engine, request, self._timeouts)

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        return _Passage(self._engine, self._timeouts, origin)


class _Passage(Passage, httpcore.ConnectionInterface):
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        return send(self._engine, request, self._timeouts)

    def close(self) -> None:
        """Nothing is held here."""


def send(pool: Pool, request: httpcore.Request, timeouts: Timeouts) -> httpcore.Response:
    """Send through the engine; the caller's own body is read here, in the caller's own thread."""
    warn_where_it_blocks()
    outgoing = to_engine(request, timeouts)
    try:
        exchange = pool.open_sync(outgoing)
        if outgoing.body is None:
            assert isinstance(request.stream, Iterable)
            _upload(exchange, request.stream)
    except LLMPoolError as error:
        raise public(error) from error.__cause__
    return to_httpcore(exchange, Body)


def _upload(exchange: Exchange, stream: Iterable[bytes]) -> None:
    home = exchange.home
    try:
        for data in stream:
            if not home.run(exchange.write, data):
                break
        home.run(exchange.finish)
        home.run(exchange.head)
    except BaseException:
        exchange.leave()
        raise
