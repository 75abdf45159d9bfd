"""An origin that cannot be reached is tried by one dial at a time, after longer and longer pauses."""

from __future__ import annotations

__all__ = ["Backoff"]

FIRST = 0.1
WAITED_FOR = 2.0  # the longest pause while somebody waits
UNATTENDED = 30.0  # and while nobody does (prewarm)
REMEMBERED = 30.0  # after the last failure, for those who come when the pause is over


class Backoff:
    """When a lane whose last dials have failed may dial again. Times are in seconds."""

    __slots__ = ("failed_at", "retry_at", "rounds")

    def __init__(self) -> None:
        self.rounds = 0
        self.failed_at = 0.0
        self.retry_at = 0.0  # before that nothing is dialed

    def grow(self, now: float, *, waited_for: bool, jitter: float) -> None:
        """A dial failed; those that were on their way together count as one. ``jitter``: 0.0 to 1.0."""
        if self.rounds and now < self.retry_at:
            return
        longest = WAITED_FOR if waited_for else UNATTENDED
        pause = min(longest, FIRST * 2.0 ** min(self.rounds, 16))
        self.rounds += 1
        self.failed_at = now
        self.retry_at = now + pause * (0.75 + 0.5 * jitter)

    def attend(self) -> None:
        """Somebody waits now."""
        self.retry_at = min(self.retry_at, self.failed_at + WAITED_FOR)

    def rest(self) -> None:
        """The pause is over, and nobody waits: who comes later is not made to wait long for the next."""
        self.rounds = 0

    @property
    def forgotten_at(self) -> float:
        """When it is too long ago to tell anything."""
        return self.failed_at + REMEMBERED
