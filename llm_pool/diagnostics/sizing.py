"""How many connections a load needs, by Little's law: calls in progress = calls per second x seconds each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from llm_pool.engine.stats.stats import PoolStats

__all__ = ["Sizing"]

DEVIATIONS = 3  # of a Poisson load: it needs more than that one moment in a thousand


@dataclass(frozen=True, slots=True)
class Sizing:
    """A load: ``rate`` in calls per second, ``seconds`` that a call holds its stream on average."""

    rate: float
    seconds: float

    @classmethod
    def from_stats(cls, stats: PoolStats, seconds: float) -> Self | None:
        """The load that a pool has carried, on average over its ``seconds``; None where there was none."""
        calls = stats.total.count
        if not calls:
            return None
        return cls(calls / seconds, max(0.0, stats.total.mean - stats.wait.mean))

    @property
    def busy(self) -> float:
        """Calls in progress at a time, on average."""
        return self.rate * self.seconds

    @property
    def streams(self) -> int:
        """Calls in progress that there should be room for: the average, and three deviations above it."""
        return max(1, math.ceil(self.busy + DEVIATIONS * math.sqrt(self.busy)))

    def connections(self, streams_per_connection: int = 1) -> int:
        """The ``max_connections`` that this load needs; HTTP/2 has many streams on a connection."""
        return math.ceil(self.streams / streams_per_connection)
