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
    """Detects that utilization (in use / max) rises to a threshold, a fraction of ``max_connections``.

    ``threshold``  connections in use at which it is crossed next, upwards or downwards
    ``is_above``   whether it was crossed upwards last

    Each change of a pool compares the two with the connections in use, and calls ``cross`` if they disagree.
    """

    def __init__(self, fraction: float | None, max_connections: int) -> None:
        self._rises_at = inf if fraction is None else fraction * max_connections
        self.threshold = self._rises_at
        self.is_above = False
        self._fell_at = -inf
        self._lock = threading.Lock()

    def cross(self, in_use: int) -> bool:
        """Note a crossing. Returns True if it went upwards, after ``REARM_SECONDS`` below the threshold."""
        with self._lock:
            is_above = in_use >= self.threshold
            if is_above == self.is_above:
                return False  # another thread has noted it first
            self.is_above = is_above
            self.threshold = self._rises_at * HYSTERESIS if is_above else self._rises_at
            now = time.monotonic()
            if not is_above:
                self._fell_at = now
            return is_above and now >= self._fell_at + REARM_SECONDS


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
