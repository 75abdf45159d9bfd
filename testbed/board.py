"""A board on which facts are written, and before which threads and tasks wait for them. No polling."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PATIENCE", "Board", "Gate"]

PATIENCE = 5.0
"""Seconds a test waits for a fact before it fails."""


class Board:
    """Holds named marks, and wakes whoever waits whenever anything written under ``change()`` changes."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._marks: Counter[str] = Counter()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Everything written inside is seen at once, and wakes those who wait."""
        with self._changed:
            yield
            self._changed.notify_all()
            sleepers, self._sleepers = self._sleepers, []
        for loop, future in sleepers:
            with contextlib.suppress(RuntimeError):  # a loop that has closed needs no waking
                loop.call_soon_threadsafe(_wake, future)

    def holds(self, predicate: Callable[[], object]) -> bool:
        """Whether the predicate is true now; nothing changes while it looks."""
        with self._changed:
            return bool(predicate())

    def wait(self, predicate: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Blocks until the predicate is true; AssertionError after ``patience`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(predicate()), patience):
                raise AssertionError(f"waited {patience:g} s in vain until {what}; {self}")

    async def come(self, predicate: Callable[[], object]) -> None:
        """Waits on the running loop, without bound, until the predicate is true."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if predicate():
                    return
                future = loop.create_future()
                self._sleepers.append((loop, future))
            await future

    async def await_(self, predicate: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """As ``wait``, on the running loop."""
        try:
            async with asyncio.timeout(patience):
                await self.come(predicate)
        except TimeoutError:
            raise AssertionError(f"waited {patience:g} s in vain until {what}; {self}") from None

    def mark(self, name: str) -> None:
        """Writes that ``name`` has happened (once more)."""
        with self.change():
            self._marks[name] += 1

    def marks(self, name: str) -> int:
        """How often ``name`` has happened."""
        return self._marks[name]

    def wait_mark(self, name: str, count: int = 1, patience: float = PATIENCE) -> None:
        """Blocks until ``name`` has happened ``count`` times."""
        self.wait(lambda: self._marks[name] >= count, f"mark {name!r} x {count}", patience)

    async def await_mark(self, name: str, count: int = 1, patience: float = PATIENCE) -> None:
        """As ``wait_mark``, on the running loop."""
        await self.await_(lambda: self._marks[name] >= count, f"mark {name!r} x {count}", patience)

    def __str__(self) -> str:
        return f"marks: {dict(self._marks)}"


class Gate:
    """A gate across a script. It starts shut; ``open()`` lets all through, ``admit(n)`` the next n.

    Scripts come to it with ``await passage()`` (tasks) or ``block()`` (threads). Every method may be
    called from any thread. A gate given no board has its own.
    """

    def __init__(self, name: str = "gate", board: Board | None = None) -> None:
        self.name = name
        self.reached = 0
        """How many have come to the gate so far."""
        self._passes: float = 0
        self._board = board or Board()

    def open(self) -> None:
        """Lets through all who wait and all who come."""
        with self._board.change():
            self._passes = math.inf

    def shut(self) -> None:
        """Lets nobody through from now on."""
        with self._board.change():
            self._passes = 0

    def admit(self, count: int = 1) -> None:
        """Lets through the next ``count``, waiting or still to come."""
        with self._board.change():
            self._passes += count

    async def passage(self) -> None:
        """Waits until the gate lets this task through."""
        self._arrive()
        await self._board.come(self._pass)

    def block(self, patience: float = PATIENCE) -> None:
        """Blocks this thread until the gate lets it through."""
        self._arrive()
        self._board.wait(self._pass, f"gate {self.name!r} lets through", patience)

    def wait_reached(self, count: int = 1, patience: float = PATIENCE) -> None:
        """Blocks until ``count`` have come to the gate."""
        self._board.wait(lambda: self.reached >= count, f"gate {self.name!r} reached x {count}", patience)

    async def await_reached(self, count: int = 1, patience: float = PATIENCE) -> None:
        """As ``wait_reached``, on the running loop."""
        await self._board.await_(
            lambda: self.reached >= count, f"gate {self.name!r} reached x {count}", patience
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
