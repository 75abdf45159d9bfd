"""The body of a request, for clients that read it piece by piece."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from llm_pool.engine.head import encode_head
from llm_pool.engine.request import Request

__all__ = ["Upload"]

MAX_PIECE = 64 * 1024  # bytes that a client writes at a time, at most
HIGH_WATER = 256 * 1024  # bytes in the queue from which on the caller has to wait


class Upload:
    """A queue of pieces between the caller and the client.

    ``on_progress`` is called each time the client has written a piece, and at the end of the body.
    """

    def __init__(self, request: Request, on_progress: Callable[[], object]) -> None:
        self.has_body = request.body != b""
        self.complete = not self.has_body  # True when the client has written the whole body
        self._on_progress = on_progress
        self._pieces: deque[bytes] = deque()
        self._queued_bytes = 0
        self._ended = request.body is not None
        self._changed = asyncio.Event()
        self._framing = encode_head(request)[1] if request.body is None else None
        if request.body:
            self._add(request.body)

    @property
    def has_room(self) -> bool:
        """True if the caller may write more."""
        return self._queued_bytes < HIGH_WATER

    @property
    def pending(self) -> bool:
        """True if the queue has bytes that the client has not written yet."""
        return self._queued_bytes > 0

    def write(self, data: bytes) -> None:
        """Add a piece of the body. Raises InvalidRequest if the body exceeds its Content-Length."""
        assert self._framing is not None
        self._framing.frame(data)
        self._add(data)

    def end(self) -> None:
        """End the body. Raises InvalidRequest if it is shorter than its Content-Length."""
        assert self._framing is not None
        self._framing.end()
        self._ended = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body as the caller writes them.

        A client asks for the next piece when it has written the previous piece.
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
