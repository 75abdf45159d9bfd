"""Lists of callbacks. One that fails must not break the code that calls it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVarTuple

from ..loops.threads import in_thread
from .stats import PoolStats

__all__ = ["STATS_INTERVAL", "Listeners", "stats_listeners"]

Ts = TypeVarTuple("Ts")

logger = logging.getLogger("llm_pool.engine")

STATS_INTERVAL = 0.25
"""The least number of seconds between two calls of ``stats_listeners``."""


class Listeners(list[Callable[[*Ts], None]], Generic[*Ts]):
    """A list of callables, called one after another. One that raises stays registered.

    The first error of each is logged with its traceback. Later ones are not: they could fill the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: list[Callable[[*Ts], None]] = []

    def call(self, *args: *Ts) -> None:
        """Call each listener, in the caller's thread."""
        for listener in self:
            try:
                listener(*args)
            except Exception as error:  # noqa: BLE001  a listener may raise anything
                self._log_once(listener, error)

    def _log_once(self, listener: Callable[[*Ts], None], error: Exception) -> None:
        if listener not in self._failed:
            self._failed.append(listener)
            # On a thread of its own: a log handler may block, and this may be an event loop.
            message = "listener %r raised; it stays registered, and its further errors are not logged"
            in_thread(logger.error, message, listener, exc_info=error)


stats_listeners: Listeners[str, PoolStats, PoolStats | None] = Listeners()
"""Called when a pool has changed, at most every ``STATS_INTERVAL``: ``(pool name, stats, previous stats)``.

They are called on an event loop and must not block.
"""
