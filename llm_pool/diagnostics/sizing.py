"""How many connections a load needs, by Little's law: calls in progress = calls per second x seconds each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from llm_pool.engine.stats.stats import PoolStats

__all__ = ["Sizing"]

DEVIATIONS = 3  # a Poisson load is above its mean by more than that for 0.1 % of the time


@dataclass(frozen=True, slots=True)
class Sizing:
    """A load on one process.

    ``rate``     calls per second
    ``seconds``  how long a call holds its stream, on average
    """

    rate: float
    seconds: float

    @classmethod
    def from_stats(cls, stats: PoolStats, seconds: float) -> Self | None:
        """The mean load of a pool that was made ``seconds`` ago; None if it has completed no call."""
        calls = stats.total.count
        if not calls:
            return None
        return cls(calls / seconds, max(0.0, stats.total.mean - stats.wait.mean))

    @property
    def busy(self) -> float:
        """Calls in progress, on average."""
        return self.rate * self.seconds

    @property
    def streams(self) -> int:
        """Calls in progress at a peak: the mean and three standard deviations."""
        return max(1, math.ceil(self.busy + DEVIATIONS * math.sqrt(self.busy)))

    def connections(self, streams_per_connection: int = 1) -> int:
        """The ``max_connections`` that this load needs. Over HTTP/2 a connection carries several streams."""
        return math.ceil(self.streams / streams_per_connection)
