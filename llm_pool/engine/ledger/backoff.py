"""Pauses between failed dials to an origin: each pause is longer than the last, up to a maximum."""

from __future__ import annotations

__all__ = ["Backoff"]

# Seconds
FIRST_PAUSE = 0.1
LONGEST_PAUSE_WITH_WAITERS = 2.0
LONGEST_PAUSE_WITHOUT_WAITERS = 30.0  # then only prewarming dials
FORGET_AFTER = 30.0  # after the last failure: calls can arrive long after the pause


class Backoff:
    """When a lane can dial again after failed dials. Times are in seconds.

    ``rounds``     how many pauses have begun since the last success or ``reset``
    ``failed_at``  when the last pause began
    ``retry_at``   when that pause ends; no dial starts earlier
    """

    __slots__ = ("failed_at", "retry_at", "rounds")

    def __init__(self) -> None:
        self.rounds = 0
        self.failed_at = 0.0
        self.retry_at = 0.0

    def dial_failed(self, now: float, *, has_waiters: bool, jitter: float) -> None:
        """Begin a pause, because a dial failed. A failure during a pause changes nothing.

        ``has_waiters``: whether the lane has waiters; its pause is then at most
        ``LONGEST_PAUSE_WITH_WAITERS``. ``jitter`` (0.0 to 1.0) makes the pause up to a quarter shorter or
        longer.
        """
        if self.rounds and now < self.retry_at:
            return
        longest = LONGEST_PAUSE_WITH_WAITERS if has_waiters else LONGEST_PAUSE_WITHOUT_WAITERS
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self.rounds, 16))
        self.rounds += 1
        self.failed_at = now
        self.retry_at = now + pause * (0.75 + 0.5 * jitter)

    def waiter_arrived(self) -> None:
        """Shorten a pause that is longer than ``LONGEST_PAUSE_WITH_WAITERS``."""
        self.retry_at = min(self.retry_at, self.failed_at + LONGEST_PAUSE_WITH_WAITERS)

    def reset(self) -> None:
        """Make the next pause short again: when the last pause ended, no call was waiting."""
        self.rounds = 0

    @property
    def forget_at(self) -> float:
        """When a lane with this backoff is removed, if it is unused."""
        return self.failed_at + FORGET_AFTER
