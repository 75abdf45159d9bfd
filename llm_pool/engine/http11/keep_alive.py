"""Finds out whether a server closes connections right after responses whose heads allow reuse."""

from __future__ import annotations

import asyncio

__all__ = ["CloseDetector", "KeepAliveHistory"]

WAIT_SECONDS = 0.01  # a server that closes right after a response has closed by then
EARLY_CLOSE_SECONDS = 0.05  # longer than WAIT_SECONDS, since a busy event loop notices a close late
CONFIRMATIONS_AFTER_CHUNKED = 3
CONFIRMATIONS_AFTER_CLOSE = 100


class KeepAliveHistory:
    """Records whether one origin keeps its connections open, separately for chunked and other responses.

    Some servers close a connection after a response whose head allows reuse: llama.cpp's server does so after
    each stream. A request that is sent before this close is noticed is lost, since it must not be sent twice
    (RFC 9110, section 9.2.2). So a call that reuses a connection right after a response first waits for the
    close, until ``WAIT_SECONDS`` after the response. It does so if, after responses of the same kind
    (chunked or not), the origin has kept connections open

    - fewer than ``CONFIRMATIONS_AFTER_CHUNKED`` times so far (chunked responses only), or
    - fewer than ``CONFIRMATIONS_AFTER_CLOSE`` times since the last early close
    """

    def __init__(self) -> None:
        self._confirmations_needed = {False: 0, True: CONFIRMATIONS_AFTER_CHUNKED}  # by ``chunked``

    def may_close(self, *, chunked: bool) -> bool:
        """Return whether to expect that the server closes a connection right after a response.

        ``chunked``: whether that response is chunked.
        """
        return self._confirmations_needed[chunked] > 0

    def record_kept(self, *, chunked: bool) -> None:
        """Record that a connection was still open ``WAIT_SECONDS`` after a response.

        ``chunked``: whether that response was chunked.
        """
        self._confirmations_needed[chunked] = max(0, self._confirmations_needed[chunked] - 1)

    def record_early_close(self, *, chunked: bool) -> None:
        """Record that the server closed a connection right after a response.

        ``chunked``: whether that response was chunked.
        """
        self._confirmations_needed[chunked] = CONFIRMATIONS_AFTER_CLOSE


class CloseDetector:
    """Finds out whether the server closes a connection right after a response. Records it in ``history``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, history: KeepAliveHistory) -> None:
        self._loop = loop
        self._history = history
        self._responded_at: float | None = None
        self._chunked = False
        self._waiting: asyncio.Future[None] | None = None

    def on_response(self, *, chunked: bool) -> bool:
        """Note that a response is complete. Return whether to expect that the server closes now.

        ``chunked``: whether the response is chunked.
        """
        self._responded_at = self._loop.time()
        self._chunked = chunked
        return self._history.may_close(chunked=chunked)

    async def wait(self) -> None:
        """Wait until ``WAIT_SECONDS`` after the last response, or until ``wake`` is called."""
        assert self._responded_at is not None
        wait_until = self._responded_at + WAIT_SECONDS
        if self._loop.time() >= wait_until:
            return
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(wait_until, self.wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def wake(self) -> None:
        """End ``wait``: its time is over, or the connection has closed."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def on_kept(self) -> None:
        """Record in the history that the connection is still open after ``wait``."""
        self._history.record_kept(chunked=self._chunked)

    def on_close(self) -> None:
        """Note that the server has closed the connection before another response has begun.

        The history gets only a close within ``EARLY_CLOSE_SECONDS`` after the last response.
        """
        if self._responded_at is not None and self._loop.time() < self._responded_at + EARLY_CLOSE_SECONDS:
            self._history.record_early_close(chunked=self._chunked)
