"""Sends PING frames to find out whether a silent server is still there (RFC 9113, section 6.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..watchdog import Watchdog

__all__ = ["Heartbeat"]

PING_AFTER = 15.0  # seconds without a byte from the server until a PING is sent
PING_SECONDS = 5.0  # seconds to wait for a byte after a PING


class Heartbeat:
    """Sends a PING if the server has sent nothing for ``PING_AFTER`` seconds. Reports a dead connection.

    ``has_streams``  returns whether calls are open
    ``ping``         sends a PING
    ``on_dead``      is called if nothing was received within ``PING_SECONDS`` after a PING
    ``received_at``  when bytes were last received, in seconds of the loop's clock

    Runs while calls are open. After a request it also runs until bytes are received, even if the call is
    cancelled before. Otherwise each new request would postpone the PING: a dead connection would never be
    found if all calls on it are cancelled after a short time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        has_streams: Callable[[], object],
        ping: Callable[[], None],
        on_dead: Callable[[], None],
    ) -> None:
        self.received_at = loop.time()
        self._loop = loop
        self._has_streams = has_streams
        self._ping = ping
        self._on_dead = on_dead
        self._watchdog = Watchdog(loop, self._check)
        self._check_at = 0.0
        self._answer_due = False  # a request was sent, and nothing was received since
        self._pinged = False

    def on_request(self) -> None:
        """Record that a request is sent.

        The next PING is sent after ``PING_AFTER`` seconds at the earliest. If no bytes were received since an
        earlier request, ``PING_AFTER`` counts from that request.
        """
        if not self._answer_due:
            self._answer_due = True
            self._check_at = self._loop.time() + PING_AFTER
            self._watchdog.watch(self._check_at)

    def on_received(self) -> None:
        """Record that bytes were received.

        The next PING is sent after ``PING_AFTER`` seconds at the earliest.
        """
        self.received_at = self._loop.time()
        self._check_at = self.received_at + PING_AFTER
        self._answer_due = self._pinged = False

    def stop(self) -> None:
        """Cancel the timer."""
        self._watchdog.stop()

    def _check(self) -> None:
        now = self._loop.time()
        if now < self._check_at:
            pass
        elif self._pinged:
            self._on_dead()
            return
        elif self._answer_due or self._has_streams():
            self._pinged = True
            self._check_at = now + PING_SECONDS
            self._ping()
        else:
            return
        self._watchdog.watch(self._check_at)
