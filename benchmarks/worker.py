"""One client in a process of its own: ``python -m benchmarks.worker CLIENT URL CONCURRENCY CALLS``.

Prints JSON: CPU seconds per call, calls per second, and the median and 99th percentile of a call's seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time

import django
from django.conf import settings

from benchmarks.clients import CLIENTS, Call


async def _measure(call: Call, concurrency: int, calls: int) -> dict[str, float]:
    await asyncio.gather(*(call() for _ in range(concurrency)))  # connections are open, code is warm
    await _run(call, concurrency, calls // 4)
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    spans = await _run(call, concurrency, calls)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    spans.sort()
    return {
        "cpu": cpu / len(spans),
        "rate": len(spans) / wall,
        "p50": spans[len(spans) // 2],
        "p99": spans[len(spans) * 99 // 100],
    }


async def _run(call: Call, concurrency: int, calls: int) -> list[float]:
    spans: list[float] = []

    async def caller(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await call()
            spans.append(time.perf_counter() - began)

    await asyncio.gather(*(caller(calls // concurrency) for _ in range(concurrency)))
    return spans


async def _main(name: str, url: str, concurrency: int, calls: int) -> None:
    async with CLIENTS[name](url) as call:
        print(json.dumps(await _measure(call, concurrency, calls)))


if __name__ == "__main__":
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the upstream has the other
    settings.configure(INSTALLED_APPS=["llm_pool"])
    django.setup()
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
