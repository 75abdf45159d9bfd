"""Pauses between the failed dials of a lane: each pause is longer than the one before, up to a maximum."""

from __future__ import annotations

__all__ = ["Backoff"]

# Seconds
FIRST_PAUSE = 0.1
LONGEST_PAUSE_WITH_WAITERS = 2.0
LONGEST_PAUSE_WITHOUT_WAITERS = 30.0  # a lane without waiters dials only to prewarm
FORGET_AFTER = 30.0  # from the start of the last pause; a call that arrives until then finds the backoff


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

        ``has_waiters``  whether the lane has waiters. If so, the pause without jitter is at most
                         ``LONGEST_PAUSE_WITH_WAITERS``, otherwise ``LONGEST_PAUSE_WITHOUT_WAITERS``
        ``jitter``       0.0 to 1.0; makes the pause up to a quarter shorter or longer
        """
        if self.rounds and now < self.retry_at:
            return
        longest = LONGEST_PAUSE_WITH_WAITERS if has_waiters else LONGEST_PAUSE_WITHOUT_WAITERS
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self.rounds, 16))
        self.rounds += 1
        self.failed_at = now
        self.retry_at = now + pause * (0.75 + 0.5 * jitter)

    def waiter_arrived(self) -> None:
        """Shorten the pause to ``LONGEST_PAUSE_WITH_WAITERS`` if it is longer."""
        self.retry_at = min(self.retry_at, self.failed_at + LONGEST_PAUSE_WITH_WAITERS)

    def reset(self) -> None:
        """Make the next pause as short as the first.

        Called when a pause has ended and the lane has neither waiters nor dials.
        """
        self.rounds = 0

    @property
    def forget_at(self) -> float:
        """When the lane with this backoff can be removed, if the lane is unused."""
        return self.failed_at + FORGET_AFTER
