"""OpenAI's SDK: one client for all calls, on httpx2 (its default) or on aiohttp (its option)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai

from benchmarks.clients.base import KEY, MESSAGES, MODEL, AsyncClient, Client, Target

__all__ = ["OpenAI", "OpenAIInThreads", "OpenAIOnAIOHTTP", "OpenAIPerCall"]


class OpenAI(AsyncClient):
    """``openai.AsyncOpenAI``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.client = openai.AsyncOpenAI(**self.options())

    def options(self) -> dict[str, Any]:
        """The arguments of a client."""
        options: dict[str, Any] = {"api_key": KEY, "base_url": self.target.url}
        if self.target.ca_file:
            context = ssl.create_default_context(cafile=self.target.ca_file)
            options["http_client"] = openai.DefaultAsyncHttpxClient(verify=context)
        elif self.target.connections > 1000:
            limits = httpx2.Limits(max_connections=self.target.connections)
            options["http_client"] = openai.DefaultAsyncHttpxClient(limits=limits)
        return options

    async def complete(self) -> str:
        return await _completed(self.client)

    async def stream(self) -> AsyncIterator[str]:
        chunks = await self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        async for chunk in chunks:
            if text := chunk.choices[0].delta.content:
                yield text


class OpenAIOnAIOHTTP(OpenAI):
    """``openai.AsyncOpenAI`` on ``openai.DefaultAioHttpClient``."""

    def options(self) -> dict[str, Any]:
        return {**super().options(), "http_client": openai.DefaultAioHttpClient()}


class OpenAIPerCall(OpenAI):
    """A new ``openai.AsyncOpenAI`` for each call."""

    async def complete(self) -> str:
        async with openai.AsyncOpenAI(**self.options()) as client:
            return await _completed(client)


class OpenAIInThreads(Client):
    """``openai.OpenAI``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._client = openai.OpenAI(api_key=KEY, base_url=target.url)

    def complete(self) -> str:
        answer = self._client.chat.completions.create(model=MODEL, messages=MESSAGES)
        return answer.choices[0].message.content or ""


async def _completed(client: openai.AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    return answer.choices[0].message.content or ""
