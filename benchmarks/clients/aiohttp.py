"""aiohttp: one session for all calls."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

from aiohttp import ClientSession, TCPConnector

from benchmarks.clients.answers import text_of, text_of_line
from benchmarks.clients.base import BODY, KEY, STREAM_BODY, AsyncClient, Target

__all__ = ["AIOHTTP"]


class AIOHTTP(AsyncClient):
    """``aiohttp.ClientSession``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        verify = ssl.create_default_context(cafile=target.ca_file) if target.ca_file else True
        connector = TCPConnector(limit=target.connections, ssl=verify)
        self._session = ClientSession(connector=connector, headers={"authorization": f"Bearer {KEY}"})

    async def complete(self) -> str:
        async with self._session.post(self.target.completions, json=BODY) as response:
            return text_of(await response.json())

    async def stream(self) -> AsyncIterator[str]:
        async with self._session.post(self.target.completions, json=STREAM_BODY) as response:
            async for line in response.content:
                if text := text_of_line(line.rstrip(b"\n")):
                    yield text
