"""A timer whose deadline moves often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Watchdog"]


class Watchdog:
    """Calls ``callback`` when the deadline has passed.

    ``deadline``  when to call ``callback``, in seconds of the loop's clock; None if no deadline is set

    A later deadline is only stored. The loop's timer is set again when it fires before the deadline. A new
    timer for each read would cost more than the read.
    """

    __slots__ = ("_armed_for", "_callback", "_handle", "_loop", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self.deadline: float | None = None

    def watch(self, deadline: float | None) -> None:
        """Set a deadline, earlier or later than the previous deadline. None removes the deadline."""
        self.deadline = deadline
        if deadline is None:
            return
        if self._handle is None:
            self._arm(deadline)
        elif deadline < self._armed_for:
            self._handle.cancel()
            self._arm(deadline)

    def stop(self) -> None:
        """Remove the deadline, and cancel the loop's timer. ``watch`` can set a deadline again."""
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
