"""Answers that come event by event: what an event costs, and what an open stream holds."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.clients import AsyncClient
from benchmarks.upstreams.answers import TOKEN
from benchmarks.work.calls import WARM_UP, Meter

__all__ = ["events", "held"]

PATIENCE = 90.0  # seconds for all streams to open
OPENING = 50  # streams at a time


async def events(client: AsyncClient, *, concurrency: int, seconds: float) -> dict[str, float]:
    """So many streams, read by a task each. Counted once all have had their first event."""
    readers = _Readers(client)
    await readers.open(concurrency)
    await asyncio.sleep(seconds * WARM_UP)
    with Meter(readers.gaps) as meter:
        await asyncio.sleep(seconds)
    readers.check()
    return meter.per_call


async def held(client: AsyncClient, *, concurrency: int) -> dict[str, float]:
    """So many streams that have had their first event and wait for the next: bytes of memory for each."""
    readers = _Readers(client)
    await readers.open(1)
    before = _memory()
    await readers.open(concurrency)
    after = _memory()
    readers.check()
    return {"bytes": (after - before) / concurrency}


class _Readers:
    """A task to each stream."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Semaphore(OPENING)
        self.gaps: list[float] = []  # seconds between an event and the next of its stream

    async def open(self, streams: int) -> None:
        begun: list[asyncio.Future[None]] = []
        for _ in range(streams):
            first = asyncio.get_running_loop().create_future()
            self._tasks.append(asyncio.create_task(self._read(first)))
            begun.append(first)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*begun)

    async def _read(self, first: asyncio.Future[None]) -> None:
        try:
            await self._turn.acquire()
            stream: AsyncIterator[str] = self._client.stream()
            assert await anext(stream) == TOKEN
        except Exception as error:  # noqa: BLE001  it is the opener who is to hear of it
            first.set_exception(error)
            return
        finally:
            self._turn.release()
        first.set_result(None)
        before = time.perf_counter()
        async for _ in stream:
            now = time.perf_counter()
            self.gaps.append(now - before)
            before = now

    def check(self) -> None:
        """Raises what a stream has failed with meanwhile; none has an end."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise AssertionError("a stream ended too early")


def _memory() -> int:
    """Bytes that this process holds in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
