"""Counts durations in fixed buckets: memory, and the time to count a duration, stay constant."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

__all__ = ["BOUNDS", "Histogram", "Spread", "find_quantile"]

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0,
)  # fmt: skip
"""The longest duration of each bucket in seconds. One more bucket counts longer durations."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The contents of a histogram at one moment.

    ``counts``  the number of durations in each bucket of ``BOUNDS``; the last number counts longer durations
    ``total``   the sum of all durations in seconds
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean duration in seconds; 0.0 if there are no durations."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, fraction: float) -> float:
        """Return the quantile ``fraction`` (0.0 to 1.0) in seconds, rounded up to the end of its bucket.

        Returns 0.0 if there are no durations; infinity if the quantile is in the last bucket.
        """
        found = find_quantile(self.counts, fraction)
        return 0.0 if found is None else (*BOUNDS, inf)[found[0]]


def find_quantile(counts: Sequence[int], fraction: float) -> tuple[int, int] | None:
    """Find the bucket that contains the quantile ``fraction`` (0.0 to 1.0).

    ``counts``: the number of values in each bucket. Returns the index of the bucket, and the number of values
    in the buckets before it; None if there are no values. To get the quantile of a sorted list by nearest
    rank, pass a count of 1 for each value: the index is then that of the value.
    """
    rank = fraction * sum(counts)
    before = 0
    for index, count in enumerate(counts):
        if count and before + count >= rank:
            return index, before
        before += count
    return None


class Histogram:
    """Counts durations in the buckets of ``BOUNDS``. Has no lock: use it only with the owner's lock held."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def record(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._total += seconds

    def spread(self) -> Spread:
        """Return the current number of durations in each bucket, and the sum of all durations."""
        return Spread(tuple(self._counts), self._total)
