"""The four kinds of call, made in the same way, so that one test holds for all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.providers.results import Completion

__all__ = ["CALLS", "STREAMS", "WHOLE", "ask"]

WHOLE = ("complete", "acomplete")
STREAMS = ("stream", "astream")
CALLS = WHOLE + STREAMS


def ask(call: str, pool: LLMPool, messages: Any = "hello", **params: Any) -> Completion:
    """Makes the call from a plain thread (async ones on an event loop of their own), to its end."""
    if call == "complete":
        return pool.complete(messages, **params)
    if call == "acomplete":
        return asyncio.run(pool.acomplete(messages, **params))
    if call == "stream":
        stream = pool.stream(messages, **params)
        for _ in stream:
            pass
    else:
        stream = asyncio.run(_read_out(pool, messages, params))
    assert stream.completion is not None
    return stream.completion


async def _read_out(pool: LLMPool, messages: Any, params: dict[str, Any]) -> Any:
    stream = pool.astream(messages, **params)
    async for _ in stream:
        pass
    return stream
