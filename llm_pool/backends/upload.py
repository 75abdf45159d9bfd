"""The body of a request, which another library's client reads piece by piece."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from llm_pool.engine.framing import Framing
from llm_pool.engine.request import Request

__all__ = ["Upload"]

MAX_PIECE = 64 * 1024  # bytes of a piece, at most
HIGH_WATER = 256 * 1024  # bytes in the queue at which the caller has to wait


class Upload:
    """The body of a request, as a queue: the caller adds pieces, and another library's client sends them.

    ``on_progress``  is called each time the client has sent a piece, and at the end of the body
    ``has_body``     whether the request has a body
    ``complete``     whether the client has sent the whole body
    """

    def __init__(self, request: Request, on_progress: Callable[[], object]) -> None:
        self.has_body = request.body != b""
        self.complete = not self.has_body
        self._on_progress = on_progress
        self._pieces: deque[bytes] = deque()
        self._queued_bytes = 0
        self._ended = request.body is not None
        self._changed = asyncio.Event()
        self._framing = Framing(request.head) if request.body is None else None
        if request.body:
            self._add(request.body)

    @property
    def has_room(self) -> bool:
        """Whether the caller can add another piece now."""
        return self._queued_bytes < HIGH_WATER

    @property
    def pending(self) -> bool:
        """Whether the queue has bytes that the library's client has not sent yet."""
        return self._queued_bytes > 0

    def write(self, data: bytes) -> None:
        """Add a piece of the request's body. Raises InvalidRequest if the body exceeds its Content-Length."""
        assert self._framing is not None
        self._framing.frame(data)
        self._add(data)

    def end(self) -> None:
        """End the request's body. Raises InvalidRequest if the body is shorter than its Content-Length."""
        assert self._framing is not None
        self._framing.end()
        self._ended = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the request's body as the caller adds them.

        The library's client must ask for the next piece only when it has sent the previous piece.
        """
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                yield piece
                self._queued_bytes -= len(piece)
                self._on_progress()
            if self._ended:
                break
            self._changed.clear()
            await self._changed.wait()
        self.complete = True
        self._on_progress()

    def _add(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PIECE):
            self._pieces.append(data[start : start + MAX_PIECE])
        self._queued_bytes += len(data)
        self._changed.set()
