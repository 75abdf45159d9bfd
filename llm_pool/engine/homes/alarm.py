"""One alarm clock, set by any thread, that outlives the event loops it ticks on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from math import inf

from ..errors import PoolClosed
from .home import Home
from .portal import home_of_caller

__all__ = ["Alarm"]


class Alarm:
    """Calls ``ring`` on a home at the earliest time it was set to, or soon after. Seconds, monotonic."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._when = inf
        self._home: Home | None = None

    def set(self, when: float) -> None:
        """Ring at ``when`` or before. From any thread, again and again: it costs nothing if it will ring."""
        # Without a lock: threads that set it in the same moment make it ring once too often, at worst.
        if self._home is not None and self._home.shut:
            self._when = inf
        if when >= self._when:
            return
        try:
            self._home = home_of_caller()
            self._when = when
            if self._home.is_here:
                self._arm(when)
            else:
                self._home.post(self._arm, when)
        except PoolClosed:
            self._when = inf  # that home has just ended, or the process has

    def _arm(self, when: float) -> None:
        delay = max(0.0, when - time.monotonic())
        asyncio.get_running_loop().call_later(delay, self._due, when, context=Context())

    def _due(self, when: float) -> None:
        if self._when == when:
            self._when = inf
        self._ring()
