"""Complete responses to concurrent callers: tasks of an event loop, or threads."""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from benchmarks.clients import AsyncClient, Client
from benchmarks.upstreams.answers import TEXT

if TYPE_CHECKING:
    from benchmarks.clients.llm_pool import ObservedComplete

__all__ = ["Meter", "calls", "percentile", "threads", "turns"]

WARM_UP = 0.3  # as a part of the measured time
MAX_SECONDS = 8.0  # of a measurement, even with a slow client


async def calls(client: AsyncClient, *, concurrency: int, seconds: float) -> dict[str, float]:
    """Make calls from ``concurrency`` tasks for ``seconds`` seconds; return ``Meter.per_call``."""
    spans: list[float] = []
    stopped = False

    async def caller() -> None:
        began = time.perf_counter()
        while not stopped:
            assert await client.complete() == TEXT
            ended = time.perf_counter()
            spans.append(ended - began)
            began = ended

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
        await _wait_for_calls(seconds * WARM_UP, spans, concurrency)
        with Meter(spans) as meter:
            await _wait_for_calls(seconds, spans, concurrency)
        stopped = True
    return meter.per_call


async def turns(
    client: ObservedComplete, *, concurrency: int, seconds: float, turns: int
) -> dict[str, float]:
    """Make calls with and without observers, in turns of ``seconds`` seconds, in this one process.

    New processes differ from each other by more than the observers cost. Returns the CPU seconds per call
    with observers, and how many times that of a call without them this is, each the median of its turns.
    """
    spans: list[float] = []
    stopped = False

    async def caller() -> None:
        while not stopped:
            began = time.perf_counter()
            assert await client.complete() == TEXT
            spans.append(time.perf_counter() - began)

    cpu: dict[bool, list[float]] = {True: [], False: []}
    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
        await _wait_for_calls(seconds, spans, concurrency)
        for number in range(turns):
            observed = number % 4 in (1, 2)
            client.observe(observed)
            with Meter(spans) as meter:
                await asyncio.sleep(seconds)
            cpu[observed].append(meter.per_call["cpu"])
        stopped = True
    observed_cpu = statistics.median(cpu[True])
    return {"cpu": observed_cpu, "times": observed_cpu / statistics.median(cpu[False])}


async def _wait_for_calls(seconds: float, spans: list[float], calls: int) -> None:
    """Wait ``seconds`` seconds and until ``calls`` calls have ended, but at most about ``MAX_SECONDS``.

    ``calls`` is the number of callers, so that a slow client's measure includes about one call of each.
    """
    began, before = time.perf_counter(), len(spans)
    await asyncio.sleep(seconds)
    while len(spans) - before < calls and time.perf_counter() - began < MAX_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(seconds / 10)


def threads(client: Client, *, concurrency: int, seconds: float) -> dict[str, float]:
    """Make calls from ``concurrency`` threads for ``seconds`` seconds; return ``Meter.per_call``."""
    spans: list[float] = []
    stopped = threading.Event()

    def caller() -> None:
        began = time.perf_counter()
        while not stopped.is_set():
            assert client.complete() == TEXT
            ended = time.perf_counter()
            spans.append(ended - began)
            began = ended

    with ThreadPoolExecutor(concurrency) as callers:
        running = [callers.submit(caller) for _ in range(concurrency)]
        try:
            wait(running, timeout=seconds * WARM_UP, return_when=FIRST_EXCEPTION)
            with Meter(spans) as meter:
                wait(running, timeout=seconds, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
        for each in running:
            each.result()
    return meter.per_call


class Meter:
    """Measures the calls that end within a block, which starts after the callers have warmed up.

    ``spans`` has the seconds of each call; the callers add to it while the block lasts. After the block,
    ``per_call`` has the CPU seconds per call (all threads, user and system), the rate per second, and the
    percentiles of the calls' seconds. Raises RuntimeError if no call has ended.
    """

    def __init__(self, spans: list[float]) -> None:
        self._spans = spans
        self.per_call: dict[str, float] = {}

    def __enter__(self) -> Meter:
        gc.collect()
        self._before = len(self._spans)
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        spans = self._spans[self._before :]
        if not spans:
            raise RuntimeError("no call ended within the measured time")
        self.per_call = {
            "cpu": cpu / len(spans),
            "rate": len(spans) / wall,
            "p50": percentile(spans, 50),
            "p99": percentile(spans, 99),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
