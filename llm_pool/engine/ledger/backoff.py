"""Pauses between dials to an origin that cannot be reached: each longer than the last, up to a maximum."""

from __future__ import annotations

__all__ = ["Backoff"]

# Seconds
FIRST_PAUSE = 0.1
LONGEST_PAUSE_WITH_WAITERS = 2.0
LONGEST_PAUSE_WITHOUT_WAITERS = 30.0  # where only prewarming dials
FORGET_AFTER = 30.0  # after the last failure; callers may come long after the pause


class Backoff:
    """When a lane whose last dials have failed may dial again. Times are in seconds.

    ``rounds``     how many pauses have begun in a row
    ``failed_at``  when the last of them began
    ``retry_at``   when it ends; no dial starts before
    """

    __slots__ = ("failed_at", "retry_at", "rounds")

    def __init__(self) -> None:
        self.rounds = 0
        self.failed_at = 0.0
        self.retry_at = 0.0

    def dial_failed(self, now: float, *, has_waiters: bool, jitter: float) -> None:
        """Begin a pause; a failure during a pause is of the same round, and changes nothing.

        ``jitter`` (0.0 to 1.0) makes the pause up to a quarter shorter or longer.
        """
        if self.rounds and now < self.retry_at:
            return
        longest = LONGEST_PAUSE_WITH_WAITERS if has_waiters else LONGEST_PAUSE_WITHOUT_WAITERS
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self.rounds, 16))
        self.rounds += 1
        self.failed_at = now
        self.retry_at = now + pause * (0.75 + 0.5 * jitter)

    def waiter_arrived(self) -> None:
        """End the pause early if it is longer than pauses with waiters are."""
        self.retry_at = min(self.retry_at, self.failed_at + LONGEST_PAUSE_WITH_WAITERS)

    def reset(self) -> None:
        """A pause has ended without waiters: let the next one be short again."""
        self.rounds = 0

    @property
    def forget_at(self) -> float:
        """When an unused lane with this backoff is forgotten."""
        return self.failed_at + FORGET_AFTER
