"""Calculates how many connections a load needs.

By Little's law, the calls in progress are the calls per second x the seconds of a call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from llm_pool.engine.stats.stats import PoolStats

__all__ = ["Sizing"]

# Standard deviations above the mean. A Poisson load is higher than that for about 0.1 % of the time.
DEVIATIONS = 3


@dataclass(frozen=True, slots=True)
class Sizing:
    """A load on one process, and the number of connections that the load needs.

    ``rate``     calls per second
    ``seconds``  how long a call uses its connection (over HTTP/2: its stream), on average
    """

    rate: float
    seconds: float

    @classmethod
    def from_stats(cls, stats: PoolStats, seconds: float) -> Self | None:
        """Return the mean load on a pool, from its ``stats``; None if no call has completed.

        ``seconds`` is how long ago the pool was made.
        """
        calls = stats.total.count
        if not calls:
            return None
        return cls(calls / seconds, max(0.0, stats.total.mean - stats.wait.mean))

    @property
    def busy(self) -> float:
        """The number of calls in progress, on average."""
        return self.rate * self.seconds

    @property
    def streams(self) -> int:
        """The number of calls in progress at a peak: the mean plus three standard deviations, at least 1."""
        return max(1, math.ceil(self.busy + DEVIATIONS * math.sqrt(self.busy)))

    def connections(self, streams_per_connection: int = 1) -> int:
        """Return the ``max_connections`` that this load needs.

        ``streams_per_connection`` is how many calls a connection carries at a time: 1 over HTTP/1.1.
        """
        return math.ceil(self.streams / streams_per_connection)
