"""The callers: tasks on the server loop and on another loop, threads, and threads that repeat asyncio.run.

Now and then something blocks the server loop and the portal, as sync code in an async view does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING

from llm_pool.engine.loops.portal import adopt_server_loop, is_portal, portal
from llm_pool.exceptions import PoolClosed
from tests.soak.calls import AsyncCalls, SyncCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.engine.loops.host_loop import HostLoop
    from tests.soak.calls import Place
    from tests.soak.record import Record

__all__ = ["Callers"]

STOP_SECONDS = 30.0
"""Seconds within which all callers must end after ``stop``."""
TASKS = 6
THREADS = 4
MAX_PAUSE = 0.02
"""The longest pause between two calls of a caller, in seconds."""
MAX_FREE, MAX_BLOCKED = 1.0, 0.3
"""The longest times in seconds between two blocks of a loop, and for which it is blocked."""


class Callers:
    """All callers; each makes calls until ``stop``, with its own random generator."""

    def __init__(self, places: list[Place], record: Record, seed: str) -> None:
        self._places, self._record, self._seed = places, record, seed
        self._stopped = threading.Event()
        self._server_loop: HostLoop | None = None
        bodies: dict[str, Callable[[str], None]] = {
            "server loop": self._server_loops,
            "other loop": self._other_loop,
            "asyncio.run 1": self._runs_in_a_row,
            "asyncio.run 2": self._runs_in_a_row,
            "blocker of the loops": self._block_loops,
            **{f"thread {number}": self._thread for number in range(THREADS)},
        }
        self._threads = [
            threading.Thread(target=self._run, args=(body, name), name=f"soak {name}", daemon=True)
            for name, body in bodies.items()
        ]

    def start(self) -> None:
        """Start all callers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each caller finish its current call, and wait for it; one that does not end is a violation."""
        self._stopped.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._record.violation(f"{thread.name!r} does not end")

    def _run(self, body: Callable[[str], None], name: str) -> None:
        try:
            body(name)
        except BaseException as error:  # noqa: BLE001 - a caller must not end before stop()
            self._record.violation(f"the caller {name!r} died", error)

    def _rng(self, name: object) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    # Threads.

    def _thread(self, name: str) -> None:
        rng = self._rng(name)
        calls = SyncCalls(self._places, self._record, rng)
        while not self._stopped.is_set():
            calls.any()
            time.sleep(rng.random() * MAX_PAUSE)

    def _block_loops(self, name: str) -> None:
        rng = self._rng(name)
        while not self._stopped.wait(rng.random() * MAX_FREE):
            is_server = rng.random() < 0.5
            host_loop = self._server_loop if is_server and self._server_loop is not None else portal()
            with contextlib.suppress(PoolClosed):  # the server loop has just ended
                host_loop.post(time.sleep, rng.random() * MAX_BLOCKED)
                self._record.event(f"blocks of the {'portal' if is_portal(host_loop) else 'server loop'}")

    # Loops.

    def _server_loops(self, name: str) -> None:
        """Run server loops one after another; each ends at a random time, during its calls."""
        rng, number = self._rng(name), 0
        while not self._stopped.is_set():
            number += 1
            lifetime = 2.0 + rng.random() * 20.0

            async def serve(number: int = number, lifetime: float = lifetime) -> None:
                self._server_loop = adopt_server_loop()
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
        rng = self._rng(name)
        calls = AsyncCalls(self._places, self._record, rng)

        async def some() -> None:
            tasks = [asyncio.create_task(calls.any()) for _ in range(rng.randint(1, 3))]
            await asyncio.wait(
                tasks, return_when=rng.choice((asyncio.FIRST_COMPLETED, asyncio.ALL_COMPLETED))
            )
            # The end of the loop cancels the others.

        while not self._stopped.is_set():
            asyncio.run(some())
            self._record.event("asyncio.run")

    async def _tasks(self, name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(self._task(f"{name} {number}"))

    async def _task(self, name: str) -> None:
        rng = self._rng(name)
        calls = AsyncCalls(self._places, self._record, rng)
        while not self._stopped.is_set():
            if rng.random() < 0.4:
                await _cancelled_call(calls, rng)
            else:
                await calls.any()
            await asyncio.sleep(rng.random() * MAX_PAUSE)


async def _cancelled_call(calls: AsyncCalls, rng: random.Random) -> None:
    """Make a call and cancel it: by a timeout, by its task, or within its first iterations of the loop."""
    kind = rng.randrange(3)
    if kind == 0:
        try:
            async with asyncio.timeout(rng.random() * 0.2):
                await calls.any()
        except TimeoutError:
            pass
        return
    task = asyncio.create_task(calls.any())
    try:
        if kind == 1:
            await asyncio.sleep(rng.random() * 0.2)
        else:
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.wait([task])
