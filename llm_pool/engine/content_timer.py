"""Measures how long a stream waits for content."""

from __future__ import annotations

from math import inf

from llm_pool.exceptions import TokenTimeout

from .config import Origin, Timeouts

__all__ = ["ContentTimer"]


class ContentTimer:
    """Measures how long the pool waits for the next content of a stream: text, reasoning or a tool call.

    ``finish_within`` replaces these limits once the answer is complete.

    It starts when an exchange waits for the server after the request is sent. After each piece of the body
    the stream calls ``restart`` if the piece has content, otherwise ``stop``: so it stands still while the
    caller asks for nothing.

    ``timeouts``: the limit for the first content is ``first_token``, for all others ``between_tokens``.

    ``deadline`` and ``error`` run on the host loop; ``restart`` and ``stop`` on the caller's thread or loop,
    while the exchange does not wait. Times are seconds of the monotonic clock, which is the loop's clock.
    """

    __slots__ = ("_between_tokens", "_has_content", "_is_finishing", "_left", "_started_at", "_timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._between_tokens = _seconds(timeouts.between_tokens)
        self._has_content = False
        self._is_finishing = False
        self._left = _seconds(timeouts.first_token)  # until the limit is reached
        self._started_at: float | None = None  # None: the timer does not run

    def deadline(self, now: float) -> float:
        """Start the timer if it does not run. Return when the limit is reached; infinity for no limit."""
        if self._started_at is None:
            self._started_at = now
        return self._started_at + self._left

    def stop(self, now: float) -> None:
        """Stop the timer. ``deadline`` starts it again."""
        if self._started_at is not None:
            self._left -= now - self._started_at
        self._started_at = None

    def restart(self) -> None:
        """Stop the timer, because content has arrived. ``deadline`` starts it with the limit for the next."""
        self._has_content = True
        self._started_at = None
        if not self._is_finishing:
            self._left = self._between_tokens

    def finish_within(self, seconds: float) -> None:
        """Stop the timer. From now on all waits together are limited to ``seconds``, whatever arrives."""
        if not self._is_finishing:
            self._is_finishing = True
            self._started_at = None
            self._left = seconds

    def error(self, now: float, origin: Origin) -> TokenTimeout | None:
        """Return the error if the limit is reached at ``now``, otherwise None."""
        if self._started_at is None or now < self._started_at + self._left:
            return None
        nothing = f"{origin} sent no text, reasoning or tool call"
        if self._has_content:
            seconds = self._timeouts.between_tokens
            return TokenTimeout(f'{nothing} for {seconds} s after the last, TIMEOUTS["between_tokens"]')
        seconds = self._timeouts.first_token
        return TokenTimeout(f'{nothing} for {seconds} s after the request, TIMEOUTS["first_token"]')


def _seconds(limit: float | None) -> float:
    return inf if limit is None else limit
