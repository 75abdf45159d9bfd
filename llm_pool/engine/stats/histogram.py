"""How durations are spread: counts in fixed buckets, so that recording one costs the same for ever."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf

__all__ = ["BOUNDS", "Histogram", "Spread"]

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0,
)  # fmt: skip
"""Upper bounds of the buckets in seconds; a last bucket takes what is longer than all of them."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations at one moment: ``total`` seconds in all, ``counts`` in each bucket of ``BOUNDS``."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Seconds; 0.0 where there is none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, fraction: float) -> float:
        """Seconds that this fraction of the durations did not exceed, to the bucket's upper bound.

        0.0 where there is none, infinity where it is longer than all bounds.
        """
        wanted = fraction * self.count
        seen = 0
        for bound, count in zip((*BOUNDS, inf), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return 0.0


class Histogram:
    """Durations that are being counted, under the lock of whoever counts them."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def record(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._total += seconds

    def spread(self) -> Spread:
        """What has been counted so far."""
        return Spread(tuple(self._counts), self._total)
