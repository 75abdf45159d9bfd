"""Timers that expire when an entry, a lane or a bound must be checked again."""

from __future__ import annotations

import heapq
from itertools import count

from .state import Bound, Entry, Lane

__all__ = ["Timers"]


class Timers:
    """Holds at most one timer for each entry, lane and bound.

    ``next_at``  when the first timer expires; None if there is none

    Setting a timer again can only make it expire earlier. If a timer expires too early, the check of its
    subject sets the next timer.
    """

    def __init__(self) -> None:
        self.next_at: float | None = None
        self._heap: list[tuple[float, int, Entry | Lane | Bound]] = []
        self._numbers = count()  # breaks ties, since subjects cannot be compared

    def set(self, when: float, subject: Entry | Lane | Bound) -> None:
        """Make ``pop_due`` return ``subject`` at ``when`` (seconds of the ledger's clock), or earlier."""
        if subject.timer_at is not None and subject.timer_at <= when:
            return
        subject.timer_at = when
        heapq.heappush(self._heap, (when, next(self._numbers), subject))
        self.next_at = self._heap[0][0]

    def pop_due(self, now: float) -> list[Entry | Lane | Bound]:
        """Remove the timers that have expired. Return their entries, lanes and bounds."""
        subjects = []
        while self._heap and self._heap[0][0] <= now:
            when, _, subject = heapq.heappop(self._heap)
            if subject.timer_at == when:
                subject.timer_at = None
                subjects.append(subject)
        self.next_at = self._heap[0][0] if self._heap else None
        return subjects

    def clear(self) -> None:
        """Remove all timers."""
        self._heap.clear()
        self.next_at = None
