"""How durations are spread: counts in fixed buckets, so that recording one costs the same for ever."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

__all__ = ["BOUNDS", "Histogram", "Spread", "find_quantile"]

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
        found = find_quantile(self.counts, fraction)
        return 0.0 if found is None else (*BOUNDS, inf)[found[0]]


def find_quantile(counts: Sequence[int], fraction: float) -> tuple[int, int] | None:
    """Find the bucket of a quantile: the first up to which ``counts`` add up to ``fraction`` of all values.

    Returns its index and the number of values in the buckets before it; None if there are no values. For a
    sorted list of values, give a count of 1 for each: that is the quantile by nearest rank.
    """
    rank = fraction * sum(counts)
    before = 0
    for index, count in enumerate(counts):
        if count and before + count >= rank:
            return index, before
        before += count
    return None


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
