"""Logs a warning when a pool is about to run out of connections, and not again with every call."""

from __future__ import annotations

import logging
from math import inf

from ..clock import monotonic
from ..loops.threads import new_lock
from .stats import PoolStats, describe

__all__ = ["Utilization", "warn_of_utilization"]

# Without these, a utilization close to the threshold, or many short peaks, would cause many warnings.
HYSTERESIS = 0.9  # the utilization counts as fallen below this fraction of the threshold
REARM_SECONDS = 10.0  # seconds after it has fallen until the next warning is possible

logger = logging.getLogger("llm_pool.engine")


class Utilization:
    """Detects that the connections in use reach ``fraction`` of ``max_connections``.

    ``threshold``  the number of connections in use at which ``is_above`` changes next: ``fraction`` of
                   ``max_connections``, times ``HYSTERESIS`` while ``is_above`` is True
    ``is_above``   whether the connections in use last crossed ``threshold`` upwards

    After each change of a pool, the coordinator compares the connections in use with ``threshold``, and calls
    ``cross`` if ``is_above`` is no longer right.

    Argument: ``fraction`` is 0.0 to 1.0; None for no warning.
    """

    def __init__(self, fraction: float | None, max_connections: int) -> None:
        self._rises_at = inf if fraction is None else fraction * max_connections
        self.threshold = self._rises_at
        self.is_above = False
        self._fell_at = -inf
        self._lock = new_lock()

    def cross(self, in_use: int) -> bool:
        """Record that ``in_use`` connections cross ``threshold``. Return whether to log a warning.

        Returns True only for a crossing upwards that comes at least ``REARM_SECONDS`` after the last crossing
        downwards. Returns False if another thread has recorded the same crossing.
        """
        with self._lock:
            is_above = in_use >= self.threshold
            if is_above == self.is_above:
                return False  # another thread has noted this crossing
            self.is_above = is_above
            self.threshold = self._rises_at * HYSTERESIS if is_above else self._rises_at
            now = monotonic()
            if not is_above:
                self._fell_at = now
            return is_above and now >= self._fell_at + REARM_SECONDS


def warn_of_utilization(name: str, stats: PoolStats) -> None:
    """Log a warning that the pool ``name`` is about to run out of connections."""
    logger.warning(
        "pool %r is %.0f %% in use (%s); callers will wait when it is full. "
        "Raise LIMITS max_connections, or make fewer calls at once.",
        name,
        100 * stats.utilization,
        describe(stats),
        extra={"pool": name, "utilization": stats.utilization, "in_use": stats.in_use},
    )
