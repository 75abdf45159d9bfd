"""Lists of callbacks. An exception in a callback is logged and not raised."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVarTuple

if TYPE_CHECKING:
    from .stats import PoolStats

__all__ = ["STATS_INTERVAL", "Listeners", "stats_listeners"]

Ts = TypeVarTuple("Ts")

logger = logging.getLogger("llm_pool.engine")

STATS_INTERVAL = 0.25
"""The shortest time between two calls of ``stats_listeners`` by one pool, in seconds."""


class Listeners(list[Callable[[*Ts], None]], Generic[*Ts]):
    """A list of callbacks, called one after another. A callback that raises stays registered.

    Only the first error of each callback is logged, with its traceback: later ones could fill the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: list[Callable[[*Ts], None]] = []

    def call(self, *args: *Ts) -> None:
        """Call each callback with ``args``, on the caller's thread.

        Raises no error of a callback. The first error of each callback is logged.
        """
        for listener in self:
            try:
                listener(*args)
            except Exception as error:  # noqa: BLE001  a callback can raise anything
                self._log_once(listener, error)

    def _log_once(self, listener: Callable[[*Ts], None], error: Exception) -> None:
        if listener not in self._failed:
            self._failed.append(listener)
            message = "listener %r raised; it stays registered, and its further errors are not logged"
            logger.error(message, listener, exc_info=error)


stats_listeners: Listeners[str, PoolStats, PoolStats | None] = Listeners()
"""Called with ``(pool name, stats, previous stats)`` after a pool has changed.

The previous stats are None in the first call by a pool. A pool calls the listeners at most once in
``STATS_INTERVAL``. They run on an event loop, and must not block.
"""
