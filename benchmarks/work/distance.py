"""Calls to a provider that is far away: what matters is how often the distance is paid for."""

from __future__ import annotations

import asyncio
import time

from benchmarks.clients import AsyncClient
from benchmarks.upstreams.answers import TEXT

__all__ = ["burst", "in_turn"]


async def in_turn(client: AsyncClient, *, calls: int) -> dict[str, float]:
    """Calls one after the other, as an agent makes them; prewarmed where the client can."""
    await client.prewarm()
    began = time.perf_counter()
    for _ in range(calls):
        assert await client.complete() == TEXT
    return {"wall": time.perf_counter() - began}


async def burst(client: AsyncClient, *, calls: int) -> dict[str, float]:
    """Calls all at once, with no connection open."""
    await client.start()
    began = time.perf_counter()
    texts = await asyncio.gather(*(client.complete() for _ in range(calls)))
    wall = time.perf_counter() - began
    assert set(texts) == {TEXT}, texts[0]
    return {"wall": wall}
