"""httpx, its successor httpx2, and httpx on aiohttp: one client for all calls."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx

from benchmarks.clients.answers import text_of, text_of_line
from benchmarks.clients.base import BODY, KEY, STREAM_BODY, AsyncClient, Client, Target

__all__ = ["HTTPX", "HTTPX2", "HTTPXInThreads", "HTTPXOnAIOHTTP", "HTTPXPerCall"]


class HTTPX(AsyncClient):
    """``httpx.AsyncClient``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.client = self.make()

    def make(self) -> Any:
        """Make a client."""
        return httpx.AsyncClient(**_options(httpx, self.target), http2=self.target.http2)

    async def complete(self) -> str:
        response = await self.client.post("/chat/completions", json=BODY)
        return text_of(response.json())

    async def stream(self) -> AsyncIterator[str]:
        async with self.client.stream("POST", "/chat/completions", json=STREAM_BODY) as response:
            async for line in response.aiter_lines():
                if text := text_of_line(line):
                    yield text


class HTTPX2(HTTPX):
    """``httpx2.AsyncClient``."""

    def make(self) -> Any:
        import httpx2

        return httpx2.AsyncClient(**_options(httpx2, self.target), http2=self.target.http2)


class HTTPXOnAIOHTTP(HTTPX):
    """``httpx_aiohttp.HttpxAiohttpClient``."""

    def make(self) -> Any:
        from httpx_aiohttp import HttpxAiohttpClient

        return HttpxAiohttpClient(**_options(httpx, self.target))


class HTTPXPerCall(HTTPX):
    """A new ``httpx.AsyncClient`` for each call, as in many views; no documentation recommends it."""

    async def complete(self) -> str:
        async with self.make() as client:
            response = await client.post("/chat/completions", json=BODY)
            return text_of(response.json())


class HTTPXInThreads(Client):
    """``httpx.Client``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._client = httpx.Client(**_options(httpx, target))

    def complete(self) -> str:
        return text_of(self._client.post("/chat/completions", json=BODY).json())


def _options(library: Any, target: Target) -> dict[str, Any]:
    connections = target.connections
    return {
        "base_url": target.url,
        "headers": {"authorization": f"Bearer {KEY}"},
        "limits": library.Limits(max_connections=connections, max_keepalive_connections=connections),
        "timeout": 60,
        "trust_env": False,
        "verify": ssl.create_default_context(cafile=target.ca_file) if target.ca_file else True,
    }
