"""litellm, which caches its HTTP clients itself."""

from __future__ import annotations

import litellm

from benchmarks.clients.base import KEY, MESSAGES, MODEL, AsyncClient

__all__ = ["LiteLLM"]


class LiteLLM(AsyncClient):
    """``litellm.acompletion``."""

    async def complete(self) -> str:
        answer = await litellm.acompletion(
            model=f"openai/{MODEL}", messages=MESSAGES, api_key=KEY, api_base=self.target.url
        )
        return answer.choices[0].message.content
