"""A board: servers record what happens on it, and threads and tasks wait for that without polling."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["WAIT_SECONDS", "Board", "Gate"]

WAIT_SECONDS = 5.0
"""Seconds that a test waits for a condition before it fails."""


class Board:
    """Counts named marks, and wakes its waiters after each ``change()``. All methods are thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._marks: Counter[str] = Counter()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Write under the lock: waiters see all writes of the block together, and wake at its end."""
        with self._changed:
            yield
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_wake, future)

    def wait(self, predicate: Callable[[], object], what: str, timeout: float = WAIT_SECONDS) -> None:
        """Block until the predicate is true. Raises AssertionError with ``what`` after ``timeout`` s."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(predicate()), timeout):
                raise AssertionError(f"not within {timeout:g} s: {what}; {self}")

    async def await_forever(self, predicate: Callable[[], object]) -> None:
        """Wait on the running loop, without a timeout, until the predicate is true."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if predicate():
                    return
                future = loop.create_future()
                self._waiters.append((loop, future))
            await future

    async def await_(self, predicate: Callable[[], object], what: str, timeout: float = WAIT_SECONDS) -> None:
        """As ``wait``, on the running loop."""
        try:
            async with asyncio.timeout(timeout):
                await self.await_forever(predicate)
        except TimeoutError:
            raise AssertionError(f"not within {timeout:g} s: {what}; {self}") from None

    def mark(self, name: str) -> None:
        """Count that ``name`` has happened once more."""
        with self.change():
            self._marks[name] += 1

    def marks(self, name: str) -> int:
        """How often ``name`` has happened."""
        return self._marks[name]

    def wait_mark(self, name: str, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Block until ``name`` has happened ``count`` times."""
        self.wait(lambda: self._marks[name] >= count, f"mark {name!r} x {count}", timeout)

    async def await_mark(self, name: str, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """As ``wait_mark``, on the running loop."""
        await self.await_(lambda: self._marks[name] >= count, f"mark {name!r} x {count}", timeout)

    def __str__(self) -> str:
        return f"marks: {dict(self._marks)}"


class Gate:
    """A gate that stops scripts until a test opens it. It starts shut.

    ``open()`` lets all through, ``admit(n)`` the next n. A task of a script waits with ``await passage()``, a
    thread with ``block()``. All methods are thread-safe. Without ``board`` the gate makes a board.
    """

    def __init__(self, name: str = "gate", board: Board | None = None) -> None:
        self.name = name
        self.reached = 0
        """How many tasks and threads have reached the gate so far."""
        self._passes: float = 0
        self._board = board or Board()

    def open(self) -> None:
        """Let through all that wait and all that come later."""
        with self._board.change():
            self._passes = math.inf

    def shut(self) -> None:
        """Let none through from now on."""
        with self._board.change():
            self._passes = 0

    def admit(self, count: int = 1) -> None:
        """Let through ``count`` more, whether they wait already or come later."""
        with self._board.change():
            self._passes += count

    async def passage(self) -> None:
        """Wait until the gate lets this task through."""
        self._arrive()
        await self._board.await_forever(self._pass)

    def block(self, timeout: float = WAIT_SECONDS) -> None:
        """Block until the gate lets this thread through. Raises AssertionError after ``timeout`` seconds."""
        self._arrive()
        self._board.wait(self._pass, f"gate {self.name!r} lets through", timeout)

    def wait_reached(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Block until ``count`` tasks and threads have reached the gate."""
        self._board.wait(lambda: self.reached >= count, f"gate {self.name!r} reached x {count}", timeout)

    async def await_reached(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """As ``wait_reached``, on the running loop."""
        await self._board.await_(
            lambda: self.reached >= count, f"gate {self.name!r} reached x {count}", timeout
        )

    def _arrive(self) -> None:
        with self._board.change():
            self.reached += 1

    def _pass(self) -> bool:
        if self._passes <= 0:
            return False
        self._passes -= 1
        return True

    def __repr__(self) -> str:
        return f"<Gate {self.name!r}: {self._passes:g} passes, {self.reached} came>"


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
