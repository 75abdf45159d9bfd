"""Whether a server keeps a connection that it has not said it would close."""

from __future__ import annotations

import asyncio

__all__ = ["Aftermath", "Persistence"]

REST_SECONDS = 0.01  # who closes right after an answer has done it by then
SOON_SECONDS = 0.05  # the same, seen from a busy event loop
FIRST_PROOFS = 3
PROOFS_AFTER_A_LAPSE = 100


class Persistence:
    """Whether one origin keeps its connections, learned for whole and for chunked answers apart.

    There are servers that close after an answer though its head speaks of keep-alive: llama.cpp's does after
    each stream. A request that crosses the close is lost, for it may not be sent twice (RFC 9110, section
    9.2.2). So who comes right behind an answer waits a moment, unless the server has kept its connections
    before; after a chunked answer it has to prove so first.
    """

    def __init__(self) -> None:
        self._proofs_wanted = {False: 0, True: FIRST_PROOFS}  # by whether the answer was chunked

    def doubted(self, *, chunked: bool) -> bool:
        """Whether a connection may yet be closed after such an answer."""
        return self._proofs_wanted[chunked] > 0

    def kept(self, *, chunked: bool) -> None:
        """A connection was still there, a moment after such an answer."""
        self._proofs_wanted[chunked] = max(0, self._proofs_wanted[chunked] - 1)

    def lapsed(self, *, chunked: bool) -> None:
        """A connection was closed right after such an answer."""
        self._proofs_wanted[chunked] = PROOFS_AFTER_A_LAPSE


class Aftermath:
    """What becomes of one connection after an answer: the server keeps it, or closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, persistence: Persistence) -> None:
        self._loop = loop
        self._persistence = persistence
        self._answered_at: float | None = None
        self._chunked = False
        self._resting: asyncio.Future[None] | None = None

    def answered(self, *, chunked: bool) -> bool:
        """An answer is complete. Whether the connection may yet be closed."""
        self._answered_at = self._loop.time()
        self._chunked = chunked
        return self._persistence.doubted(chunked=chunked)

    async def rest(self) -> None:
        """Wait until the server would have closed, if it was going to, or has."""
        assert self._answered_at is not None
        rested_at = self._answered_at + REST_SECONDS
        if self._loop.time() >= rested_at:
            return
        self._resting = self._loop.create_future()
        timer = self._loop.call_at(rested_at, self.wake)
        try:
            await self._resting
        finally:
            timer.cancel()
            self._resting = None

    def wake(self) -> None:
        """End the rest."""
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    def kept(self) -> None:
        """The connection is still there after its rest."""
        self._persistence.kept(chunked=self._chunked)

    def left(self) -> None:
        """The server has closed the connection, and answered no other call before."""
        if self._answered_at is not None and self._loop.time() < self._answered_at + SOON_SECONDS:
            self._persistence.lapsed(chunked=self._chunked)
