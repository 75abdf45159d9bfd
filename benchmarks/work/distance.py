"""Calls to a distant provider: their time depends on the number of round trips."""

from __future__ import annotations

import asyncio
import time

from benchmarks.clients import AsyncClient
from benchmarks.upstreams.answers import TEXT

__all__ = ["burst", "in_turn"]


async def in_turn(client: AsyncClient, *, calls: int) -> dict[str, float]:
    """Make ``calls`` calls one after the other, as an agent does; return their total seconds.

    The client is prewarmed first, if its library can do that.
    """
    await client.prewarm()
    began = time.perf_counter()
    for _ in range(calls):
        assert await client.complete() == TEXT
    return {"wall": time.perf_counter() - began}


async def burst(client: AsyncClient, *, calls: int) -> dict[str, float]:
    """Make ``calls`` calls at once, with no connection open; return the seconds until the last response."""
    await client.start()
    began = time.perf_counter()
    texts = await asyncio.gather(*(client.complete() for _ in range(calls)))
    wall = time.perf_counter() - began
    assert set(texts) == {TEXT}, texts[0]
    return {"wall": wall}
