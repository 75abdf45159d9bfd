"""A request's body on its way to a client that asks for it piece by piece."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from llm_pool.engine.head import encode_head
from llm_pool.engine.request import Request

__all__ = ["Upload"]

PIECE = 64 * 1024  # bytes that a client writes at a time
HIGH_WATER = 256 * 1024  # bytes that wait for the client before the caller waits


class Upload:
    """``moved`` is called whenever the client has written a piece, and at the end: a sign of life."""

    def __init__(self, request: Request, moved: Callable[[], object]) -> None:
        self.exists = request.body != b""
        self.whole = not self.exists  # written to its end
        self._moved = moved
        self._pieces: deque[bytes] = deque()
        self._queued = 0
        self._ended = request.body is not None
        self._news = asyncio.Event()
        self._framing = encode_head(request)[1] if request.body is None else None
        if request.body:
            self._add(request.body)

    @property
    def has_room(self) -> bool:
        """Whether the caller may give more."""
        return self._queued < HIGH_WATER

    @property
    def pending(self) -> bool:
        """Whether there is something that the server has still to take."""
        return self._queued > 0

    def give(self, data: bytes) -> None:
        """A piece of the body. Raises InvalidRequest for more than the head has announced."""
        assert self._framing is not None
        self._framing.frame(data)
        self._add(data)

    def end(self) -> None:
        """That was the last piece. Raises InvalidRequest for less than the head has announced."""
        assert self._framing is not None
        self._framing.end()
        self._ended = True
        self._news.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. A client asks for the next piece when it has written the last."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                yield piece
                self._queued -= len(piece)
                self._moved()
            if self._ended:
                break
            self._news.clear()
            await self._news.wait()
        self.whole = True
        self._moved()

    def _add(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            self._pieces.append(data[start : start + PIECE])
        self._queued += len(data)
        self._news.set()
