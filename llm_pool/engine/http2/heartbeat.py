"""Whether a server that says nothing is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..watchdog import Watchdog

__all__ = ["Heartbeat"]

PING_AFTER = 15.0  # seconds of silence, with something asked, before the server is to give a sign of life
PING_SECONDS = 5.0  # and how long it has to give one


class Heartbeat:
    """Calls ``ping`` after a silence, and ``dead`` when that brings nothing.

    It beats while calls are open (``busy``), and on until the server has said something: those who give up
    on a dead connection one after another must not each begin the wait anew.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        busy: Callable[[], object],
        ping: Callable[[], None],
        dead: Callable[[], None],
    ) -> None:
        self.heard_at = loop.time()
        self._loop = loop
        self._busy = busy
        self._ping = ping
        self._dead = dead
        self._watchdog = Watchdog(loop, self._beat)
        self._due = 0.0
        self._asked = False  # and nothing has been heard since
        self._pinged = False

    def ask(self) -> None:
        """Something goes out that the server is to answer."""
        if not self._asked:
            self._asked = True
            self._due = self._loop.time() + PING_AFTER
            self._watchdog.watch(self._due)

    def hear(self) -> None:
        """Something has come."""
        self.heard_at = self._loop.time()
        self._due = self.heard_at + PING_AFTER
        self._asked = self._pinged = False

    def stop(self) -> None:
        """Take its timer off the loop."""
        self._watchdog.stop()

    def _beat(self) -> None:
        now = self._loop.time()
        if now < self._due:
            pass
        elif self._pinged:
            self._dead()
            return
        elif self._asked or self._busy():
            self._pinged = True
            self._due = now + PING_SECONDS
            self._ping()
        else:
            return
        self._watchdog.watch(self._due)
