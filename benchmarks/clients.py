"""The clients that are compared, each in the way its documentation recommends. One coroutine is one call."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["CLIENTS", "Call"]

Call = Callable[[], Awaitable[object]]
MESSAGES = [{"role": "user", "content": "Say hello."}]
LIMIT = 2000


@asynccontextmanager
async def acomplete(url: str) -> AsyncIterator[Call]:
    """``pools["default"].acomplete`` on the server's loop, as in an async view; nobody looks on."""
    from llm_pool import calls
    from llm_pool.engine import news

    calls._observers.clear()
    news.listeners.clear()
    async with _acomplete(url) as call:
        yield call


@asynccontextmanager
async def _acomplete(url: str) -> AsyncIterator[Call]:
    from llm_pool.conf import load
    from llm_pool.engine import portal
    from llm_pool.service import LLMPool

    pool = LLMPool(load(_settings(url))["default"])
    portal.adopt_server_loop()
    try:
        yield lambda: pool.acomplete(MESSAGES)
    finally:
        await pool.aclose()


@asynccontextmanager
async def acomplete_observed(url: str) -> AsyncIterator[Call]:
    """``acomplete`` with metrics, from a request with the middleware: the call is all that the view does."""
    from django.http import HttpRequest, HttpResponse

    from llm_pool.middleware import PoolMiddleware

    async with _acomplete(url) as complete:

        async def view(request: HttpRequest) -> HttpResponse:
            await complete()
            return response

        middleware = PoolMiddleware(view)
        request, response = HttpRequest(), HttpResponse()

        async def call() -> object:
            return await middleware(request)

        yield call


@asynccontextmanager
async def aclient(url: str) -> AsyncIterator[Call]:
    """``pools["default"].aclient``: httpx's client on our pool."""
    from llm_pool.conf import load
    from llm_pool.engine import portal
    from llm_pool.service import LLMPool

    pool = LLMPool(load(_settings(url))["default"])
    portal.adopt_server_loop()

    async def call() -> object:
        response = await pool.aclient.post("/chat/completions", json={"model": "m", "messages": MESSAGES})
        return response.json()

    try:
        yield call
    finally:
        await pool.aclose()


@asynccontextmanager
async def stock_httpx(url: str) -> AsyncIterator[Call]:
    """One ``httpx.AsyncClient`` for all calls; over HTTP/2 where the URL is https."""
    limits = httpx.Limits(max_connections=LIMIT, max_keepalive_connections=LIMIT)
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=60, trust_env=False, verify=False, http2=url.startswith("https")
    ) as client:

        async def call() -> object:
            response = await client.post(
                "/chat/completions",
                json={"model": "m", "messages": MESSAGES},
                headers={"authorization": "Bearer key"},
            )
            return response.json()

        yield call


@asynccontextmanager
async def aiohttp(url: str) -> AsyncIterator[Call]:
    """One ``aiohttp.ClientSession`` for all calls."""
    from aiohttp import ClientSession, TCPConnector

    async with ClientSession(connector=TCPConnector(limit=LIMIT)) as session:

        async def call() -> object:
            async with session.post(
                f"{url}/chat/completions",
                json={"model": "m", "messages": MESSAGES},
                headers={"authorization": "Bearer key"},
            ) as response:
                return json.loads(await response.read())

        yield call


def _settings(url: str) -> dict[str, dict[str, object]]:
    limits = {"max_connections": LIMIT, "max_keepalive_connections": LIMIT, "max_waiting": 100_000}
    common = {"BASE_URL": url, "API_KEY": "key", "MODEL": "m", "PROXY": "", "LIMITS": limits}
    return {"default": {**common, "TLS": {"verify": False}}}


CLIENTS = {
    "acomplete": acomplete,
    "acomplete+metrics": acomplete_observed,
    "aclient": aclient,
    "httpx": stock_httpx,
    "aiohttp": aiohttp,
}
