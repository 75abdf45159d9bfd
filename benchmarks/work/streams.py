"""Streamed responses: CPU per event, and memory per open stream."""

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

TIMEOUT = 90.0  # seconds for all streams to open
MAX_OPENING = 50  # streams that are opened at the same time


async def events(client: AsyncClient, *, concurrency: int, seconds: float) -> dict[str, float]:
    """Read ``concurrency`` streams, each in a task; measure after each has had its first event."""
    readers = _Readers(client)
    await readers.open(concurrency)
    await asyncio.sleep(seconds * WARM_UP)
    with Meter(readers.gaps) as meter:
        await asyncio.sleep(seconds)
    readers.check()
    return meter.per_call


async def held(client: AsyncClient, *, concurrency: int) -> dict[str, float]:
    """Open ``concurrency`` streams; return the bytes of memory for each, after its first event."""
    readers = _Readers(client)
    await readers.open(1)
    before = _memory()
    await readers.open(concurrency)
    after = _memory()
    readers.check()
    return {"bytes": (after - before) / concurrency}


class _Readers:
    """The tasks that read the streams, one for each stream.

    ``gaps`` has the seconds between an event and the next one of its stream.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._opening = asyncio.Semaphore(MAX_OPENING)
        self.gaps: list[float] = []

    async def open(self, streams: int) -> None:
        first_events: list[asyncio.Future[None]] = []
        for _ in range(streams):
            first = asyncio.get_running_loop().create_future()
            self._tasks.append(asyncio.create_task(self._read(first)))
            first_events.append(first)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*first_events)

    async def _read(self, first: asyncio.Future[None]) -> None:
        try:
            await self._opening.acquire()
            stream: AsyncIterator[str] = self._client.stream()
            assert await anext(stream) == TOKEN
        except Exception as error:  # noqa: BLE001  open() raises it
            first.set_exception(error)
            return
        finally:
            self._opening.release()
        first.set_result(None)
        before = time.perf_counter()
        async for _ in stream:
            now = time.perf_counter()
            self.gaps.append(now - before)
            before = now

    def check(self) -> None:
        """Raise the error of a stream that has failed, or AssertionError if a stream has ended."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise AssertionError("a stream ended too early")


def _memory() -> int:
    """The resident memory of this process in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
