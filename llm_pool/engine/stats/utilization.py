"""Says when a pool is about to run out of connections: once, and not with every call."""

from __future__ import annotations

import logging
import threading
import time
from math import inf

from ..loops.threads import in_thread
from .stats import PoolStats, describe

__all__ = ["Utilization", "warn_of_utilization"]

# Utilization that trembles around the mark, or falls between one burst and the next, is one crossing.
RELIEF = 0.9  # of the mark
CALM_SECONDS = 10.0

logger = logging.getLogger("llm_pool.engine")


class Utilization:
    """Watches utilization (in use / max) cross a mark from below; ``mark`` is 0.0 to 1.0, None for never."""

    def __init__(self, mark: float | None) -> None:
        self._mark = mark
        self._over = False
        self._relieved_at = -inf
        self._lock = threading.Lock()

    def has_crossed(self, in_use: int, most: int) -> bool:
        """Whether the mark has just been reached: once, until less has been in use for ``CALM_SECONDS``."""
        if self._mark is None:
            return False
        mark = self._mark * most
        over = in_use >= (mark * RELIEF if self._over else mark)
        if over == self._over:
            return False
        with self._lock:
            if over == self._over:
                return False  # another thread saw it first
            self._over = over
            now = time.monotonic()
            if not over:
                self._relieved_at = now
            return over and now >= self._relieved_at + CALM_SECONDS


def warn_of_utilization(name: str, stats: PoolStats) -> None:
    """On a thread of its own: a log handler may block, and this is the path of a call."""
    in_thread(
        logger.warning,
        "pool %r is %.0f %% in use (%s); callers will wait when it is full. "
        "Raise LIMITS max_connections, or make fewer calls at once.",
        name,
        100 * stats.utilization,
        describe(stats),
        extra={"pool": name, "utilization": stats.utilization, "in_use": stats.in_use},
    )
