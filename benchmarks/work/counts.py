"""What calls cost in numbers that do not depend on the speed of the machine: functions called, and dials."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from benchmarks.clients import AsyncClient
from benchmarks.upstreams.answers import TEXT

__all__ = ["dials", "functions"]

WARM_UP = 3  # calls, which make what all calls use


async def functions(client: AsyncClient, *, calls: int) -> dict[str, float]:
    """Return how many functions one call on a warm connection calls: all, and those in Python.

    Includes those of the event loop. A coroutine counts again each time that it goes on.
    """
    called: Counter[str] = Counter()

    def count(_frame: object, event: str, _argument: object) -> None:
        called[event] += 1

    for _ in range(WARM_UP):
        assert await client.complete() == TEXT
    sys.setprofile(count)
    for _ in range(calls):
        await client.complete()
    sys.setprofile(None)
    return {"functions": (called["call"] + called["c_call"]) / calls, "python": called["call"] / calls}


async def dials(client: AsyncClient, *, calls: int, concurrency: int) -> dict[str, float]:
    """Make ``calls`` calls in bursts of ``concurrency``, each after the last has ended; count the dials."""
    for _ in range(calls // concurrency):
        await asyncio.gather(*(client.complete() for _ in range(concurrency)))
    return {"dials": float(client.dials())}
