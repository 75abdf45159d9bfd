"""``llm_pool``, as in an ASGI process: the calls are made on the server loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry

from benchmarks.clients.answers import text_of
from benchmarks.clients.base import BODY, KEY, MESSAGES, MODEL, AsyncClient, Client, Target
from llm_pool import observe, pools, unobserve
from llm_pool.conf.observability import latency_buckets
from llm_pool.engine.loops.portal import adopt_server_loop
from llm_pool.metrics import Metrics
from llm_pool.middleware import PoolMiddleware

__all__ = ["Complete", "CompleteByDefault", "CompleteInThreads", "HTTPXOnPool", "ObservedComplete"]

STARTUP = 0.2
"""Seconds for the pool's background work after its start; in a server, the first call comes later."""


class Complete(AsyncClient):
    """``pools["default"].acomplete`` and ``astream`` on the server loop, without observers."""

    limits: ClassVar[dict[str, int] | None] = None

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        _set_up(target, self.limits)
        adopt_server_loop()

    async def start(self) -> None:
        await pools["default"].aprewarm()
        await asyncio.sleep(STARTUP)

    async def prewarm(self) -> None:
        settings.LLM_POOL["default"]["LIMITS"]["min_connections"] = 1
        await pools["default"].aclose()  # the next use makes it with the new limit
        pool = pools["default"]
        await pool.aprewarm()
        while not pool.stats().idle:  # noqa: ASYNC110  no event reports that an idle connection is open
            await asyncio.sleep(0.01)

    def dials(self) -> int:
        return pools["default"].stats().opened

    async def complete(self) -> str:
        completion = await pools["default"].acomplete(MESSAGES)
        return completion.text

    async def stream(self) -> AsyncIterator[str]:
        async with pools["default"].astream(MESSAGES) as stream:
            async for chunk in stream:
                if chunk.text:
                    yield chunk.text


class CompleteByDefault(Complete):
    """``acomplete`` with the default limits: 100 connections, 20 of which stay open."""

    limits: ClassVar[dict[str, int]] = {}


class ObservedComplete(Complete):
    """``acomplete`` with metrics, behind the middleware, in a view that does nothing else.

    After ``observe(False)`` it is ``acomplete`` alone, until ``observe(True)``.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._request, self._response = HttpRequest(), HttpResponse()
        self._text = ""
        self._middleware: Any = PoolMiddleware(self._view)
        self._metrics = Metrics(CollectorRegistry(), "llm_pool", tuple(latency_buckets()))
        self._observed = False
        self.observe(True)

    def observe(self, observed: bool) -> None:
        """Begin or stop to use the metrics and the middleware. Does nothing if that is so already."""
        if observed is not self._observed:
            (observe if observed else unobserve)(self._metrics.call_ended)
        self._observed = observed

    async def complete(self) -> str:
        if not self._observed:
            return await super().complete()
        await self._middleware(self._request)
        return self._text

    async def _view(self, request: HttpRequest) -> HttpResponse:
        self._text = await super().complete()
        return self._response


class HTTPXOnPool(Complete):
    """``pools["default"].aclient``, the pool's httpx client."""

    async def complete(self) -> str:
        response = await pools["default"].aclient.post("/chat/completions", json=BODY)
        return text_of(response.json())


class CompleteInThreads(Client):
    """``pools["default"].complete``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        _set_up(target)

    def complete(self) -> str:
        return pools["default"].complete(MESSAGES).text


def _set_up(target: Target, limits: dict[str, int] | None = None) -> None:
    if limits is None:
        limits = {
            "max_connections": target.connections,
            "max_keepalive_connections": target.connections,
            "max_waiting": 100_000,
        }
    pool = {"BASE_URL": target.url, "API_KEY": KEY, "MODEL": MODEL, "PROXY": "", "LIMITS": limits}
    pool |= {"HTTP2": target.http2, "TLS": {"ca_file": target.ca_file}, "WARN_UTILIZATION": None}
    settings.configure(LLM_POOL={"default": pool})
    django.setup()
    pools.all()  # as the app does at its start
