"""Anthropic's SDK: one client for all calls. The upstream answers them in Anthropic's format."""

from __future__ import annotations

import anthropic

from benchmarks.clients.base import KEY, MESSAGES, MODEL, AsyncClient, Target

__all__ = ["Anthropic"]


class Anthropic(AsyncClient):
    """``anthropic.AsyncAnthropic``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        base_url = target.url.removesuffix("/v1")  # the SDK adds it
        self._client = anthropic.AsyncAnthropic(api_key=KEY, base_url=base_url)

    async def complete(self) -> str:
        answer = await self._client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=100)
        return answer.content[0].text
