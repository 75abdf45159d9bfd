"""Callers: tasks on the server loop and on another loop, threads, and ``asyncio.run`` repeatedly."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING

from llm_pool.engine.loops.portal import adopt_server_loop
from tests.soak.calls import AsyncCalls, SyncCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.calls import Place
    from tests.soak.record import Record

__all__ = ["Callers"]

PATIENCE = 30.0
"""Seconds within which all callers must end after ``stop``."""
TASKS = 6
THREADS = 4
BREATH = 0.02
"""Seconds, at most, between two calls of a caller."""


class Callers:
    """All callers, each with its own random numbers, until ``stop``."""

    def __init__(self, places: list[Place], record: Record, seed: str) -> None:
        self._places, self._record, self._seed = places, record, seed
        self._over = threading.Event()
        bodies: dict[str, Callable[[str], None]] = {
            "server loop": self._server_loops,
            "other loop": self._other_loop,
            "asyncio.run 1": self._runs_in_a_row,
            "asyncio.run 2": self._runs_in_a_row,
            **{f"thread {number}": self._thread for number in range(THREADS)},
        }
        self._threads = [
            threading.Thread(target=self._guarded, args=(body, name), name=f"soak {name}", daemon=True)
            for name, body in bodies.items()
        ]

    def start(self) -> None:
        """Start all callers at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each caller end after its current call; a caller that does not end is a violation."""
        self._over.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._record.violation(f"{thread.name!r} does not end")

    def _guarded(self, body: Callable[[str], None], name: str) -> None:
        try:
            body(name)
        except BaseException as error:  # noqa: BLE001 - a caller that dies would make no more calls
            self._record.violation(f"the caller {name!r} died", error)

    def _chance(self, name: object) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    # Threads.

    def _thread(self, name: str) -> None:
        chance = self._chance(name)
        calls = SyncCalls(self._places, self._record, chance)
        while not self._over.is_set():
            calls.any()
            time.sleep(chance.random() * BREATH)

    # Loops.

    def _server_loops(self, name: str) -> None:
        """Server loops, one after the other; each ends in the middle of its calls."""
        chance, number = self._chance(name), 0
        while not self._over.is_set():
            number += 1
            lifetime = 2.0 + chance.random() * 20.0

            async def serve(number: int = number, lifetime: float = lifetime) -> None:
                adopt_server_loop()
                self._record.event("server loops")
                try:
                    async with asyncio.timeout(lifetime):
                        await self._tasks(f"{name} {number}")
                except TimeoutError:
                    pass

            asyncio.run(serve())

    def _other_loop(self, name: str) -> None:
        asyncio.run(self._tasks(name))

    def _runs_in_a_row(self, name: str) -> None:
        chance = self._chance(name)
        calls = AsyncCalls(self._places, self._record, chance)

        async def some() -> None:
            tasks = [asyncio.create_task(calls.any()) for _ in range(chance.randint(1, 3))]
            await asyncio.wait(
                tasks, return_when=chance.choice((asyncio.FIRST_COMPLETED, asyncio.ALL_COMPLETED))
            )
            # The end of the loop cancels the others.

        while not self._over.is_set():
            asyncio.run(some())
            self._record.event("asyncio.run")

    async def _tasks(self, name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(self._task(f"{name} {number}"))

    async def _task(self, name: str) -> None:
        chance = self._chance(name)
        calls = AsyncCalls(self._places, self._record, chance)
        while not self._over.is_set():
            if chance.random() < 0.4:
                await _cancel_at_random(calls, chance)
            else:
                await calls.any()
            await asyncio.sleep(chance.random() * BREATH)


async def _cancel_at_random(calls: AsyncCalls, chance: random.Random) -> None:
    """Make a call and cancel it at a random moment: by a timeout, by its task, or in its first ticks."""
    way = chance.randrange(3)
    if way == 0:
        try:
            async with asyncio.timeout(chance.random() * 0.2):
                await calls.any()
        except TimeoutError:
            pass
        return
    task = asyncio.create_task(calls.any())
    try:
        if way == 1:
            await asyncio.sleep(chance.random() * 0.2)
        else:
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.wait([task])
