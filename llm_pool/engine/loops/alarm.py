"""A timer that any thread may set, and that moves to another event loop if its own has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from math import inf

from llm_pool.exceptions import PoolClosed

from .host_loop import HostLoop
from .portal import host_loop_of_caller

__all__ = ["Alarm"]


class Alarm:
    """Calls ``callback`` on a host loop at the earliest time that was set, or soon after.

    Times are seconds of the monotonic clock.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._when = inf
        self._host_loop: HostLoop | None = None

    def set(self, when: float) -> None:
        """Call back at ``when`` or before. From any thread. Does nothing if an earlier time is set."""
        # Without a lock: threads that set it at the same time cause at worst one more call.
        if self._host_loop is not None and self._host_loop.closing:
            self._when = inf
        if when >= self._when:
            return
        try:
            self._host_loop = host_loop_of_caller()
            self._when = when
            if self._host_loop.is_current:
                self._arm(when)
            else:
                self._host_loop.post(self._arm, when)
        except PoolClosed:
            self._when = inf  # the loop has just ended, or the process is ending

    def _arm(self, when: float) -> None:
        delay = max(0.0, when - time.monotonic())
        asyncio.get_running_loop().call_later(delay, self._due, when, context=Context())

    def _due(self, when: float) -> None:
        if self._when == when:
            self._when = inf
        self._callback()
