"""A timer that any thread can set. It runs on a host loop, and is cleared if that loop ends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextvars import Context
from math import inf

from llm_pool.exceptions import PoolClosed, TransportFailed

from ..clock import monotonic
from .host_loop import HostLoop
from .portal import after_loop_ended, host_loop_of_caller

__all__ = ["Alarm"]


class Alarm:
    """Calls ``callback`` on a host loop at the earliest time that was set, or soon after that.

    ``due_at``  the earliest time that was set, in seconds of the monotonic clock; infinity if none is set

    ``callback`` can also be called at later times that were set.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self.due_at = inf
        self._callback = callback
        self._host_loop: HostLoop | None = None
        _alarms.add(self)

    def set(self, when: float) -> None:
        """Call ``callback`` at ``when``, unless an earlier time is set. Can be called from any thread.

        ``when``: seconds of the monotonic clock. Nothing is set if the process is exiting, if the host
        loop has just ended, or if it cannot start.
        """
        # No lock is needed: if two threads set the time at once, the worst result is one more call.
        if when >= self.due_at:
            return
        try:
            self._host_loop = host_loop_of_caller()
            self.due_at = when
            if self._host_loop.is_current:
                self._arm(when)
            else:
                self._host_loop.post(self._arm, when)
        except (PoolClosed, TransportFailed):
            self.due_at = inf  # the loop has just ended, the process is ending, or no portal can start

    def loop_ended(self, host_loop: HostLoop) -> None:
        """Clear the time that was set on ``host_loop``, if any. Called after ``host_loop`` has ended."""
        if self._host_loop is host_loop:
            self.due_at = inf

    def _arm(self, when: float) -> None:
        delay = max(0.0, when - monotonic())
        asyncio.get_running_loop().call_later(delay, self._due, when, context=Context())

    def _due(self, when: float) -> None:
        if self.due_at == when:
            self.due_at = inf
        self._callback()


_alarms: weakref.WeakSet[Alarm] = weakref.WeakSet()


@after_loop_ended
def _forget_times(host_loop: HostLoop) -> None:
    for alarm in list(_alarms):
        alarm.loop_ended(host_loop)
