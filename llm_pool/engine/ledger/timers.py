"""What is to be looked at again, and when."""

from __future__ import annotations

import heapq
from itertools import count

from .state import Entry, Lane

__all__ = ["Timers"]


class Timers:
    """One alarm for each subject: the earliest that was asked for. When it has rung another may be set."""

    def __init__(self) -> None:
        self.next: float | None = None
        self._heap: list[tuple[float, int, Entry | Lane]] = []
        self._numbers = count()

    def set(self, when: float, subject: Entry | Lane) -> None:
        """Have ``subject`` looked at by then, on the ledger's clock."""
        if subject.alarm is not None and subject.alarm <= when:
            return
        subject.alarm = when
        heapq.heappush(self._heap, (when, next(self._numbers), subject))
        self.next = self._heap[0][0]

    def due(self, now: float) -> list[Entry | Lane]:
        """Those whose time has come."""
        subjects = []
        while self._heap and self._heap[0][0] <= now:
            when, _, subject = heapq.heappop(self._heap)
            if subject.alarm == when:
                subject.alarm = None
                subjects.append(subject)
        self.next = self._heap[0][0] if self._heap else None
        return subjects

    def clear(self) -> None:
        """Let all go."""
        self._heap.clear()
        self.next = None
