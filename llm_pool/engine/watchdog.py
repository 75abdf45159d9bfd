"""A timer whose deadline moves often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Watchdog"]


class Watchdog:
    """Calls ``callback`` once the deadline has passed.

    ``deadline``: in seconds of the loop's clock; None: never. Moving it to a later time costs an assignment:
    the loop's timer stays, and when it fires too early it is set again. A timer for each read would cost more
    than the read.
    """

    __slots__ = ("_armed_for", "_callback", "_handle", "_loop", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self.deadline: float | None = None

    def watch(self, deadline: float | None) -> None:
        """Set the deadline, which may be earlier than the one before."""
        self.deadline = deadline
        if deadline is None:
            return
        if self._handle is None:
            self._arm(deadline)
        elif deadline < self._armed_for:
            self._handle.cancel()
            self._arm(deadline)

    def stop(self) -> None:
        """Cancel the loop's timer. ``watch`` starts it again."""
        self.deadline = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        self._armed_for = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        deadline = self.deadline
        if deadline is None:
            return
        if self._loop.time() < deadline:
            self._arm(deadline)
            return
        self.deadline = None
        self._callback()
