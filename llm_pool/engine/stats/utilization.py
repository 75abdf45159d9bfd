"""Logs a warning when a pool is about to run out of connections: once, and not with every call."""

from __future__ import annotations

import logging
import threading
import time
from math import inf

from ..loops.threads import in_thread
from .stats import PoolStats, describe

__all__ = ["Utilization", "warn_of_utilization"]

# Without these, a utilization close to the threshold, or a series of bursts, would log many warnings.
HYSTERESIS = 0.9  # utilization is below the threshold again at less than this fraction of it
REARM_SECONDS = 10.0  # seconds for which it must be below the threshold before the next warning

logger = logging.getLogger("llm_pool.engine")


class Utilization:
    """Detects that utilization (in use / max) crosses ``threshold``, 0.0 to 1.0, from below. None: never."""

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._above = False
        self._fell_at = -inf
        self._lock = threading.Lock()

    def has_crossed(self, in_use: int, max_connections: int) -> bool:
        """Whether utilization has just risen to the threshold, after ``REARM_SECONDS`` below it."""
        if self._threshold is None:
            return False
        threshold = self._threshold * max_connections
        above = in_use >= (threshold * HYSTERESIS if self._above else threshold)
        if above == self._above:
            return False
        with self._lock:
            if above == self._above:
                return False  # another thread has noticed it first
            self._above = above
            now = time.monotonic()
            if not above:
                self._fell_at = now
            return above and now >= self._fell_at + REARM_SECONDS


def warn_of_utilization(name: str, stats: PoolStats) -> None:
    """Log the warning, on a thread of its own: a log handler may block, and this runs on an event loop."""
    in_thread(
        logger.warning,
        "pool %r is %.0f %% in use (%s); callers will wait when it is full. "
        "Raise LIMITS max_connections, or make fewer calls at once.",
        name,
        100 * stats.utilization,
        describe(stats),
        extra={"pool": name, "utilization": stats.utilization, "in_use": stats.in_use},
    )
