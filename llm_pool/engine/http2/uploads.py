"""The streams of an HTTP/2 connection that have data to send. They take turns."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .wire import Wire

if TYPE_CHECKING:
    from .stream import HTTP2Stream

__all__ = ["Uploads"]

UPLOAD_BATCH = 128 * 1024  # bytes of bodies written at once; the head of a new call waits for these at most


class Uploads:
    """A queue of streams with data to send, through ``wire``."""

    def __init__(self, wire: Wire[HTTP2Stream]) -> None:
        self._wire = wire
        self._queue: deque[HTTP2Stream] = deque()

    def add(self, stream: HTTP2Stream) -> None:
        """Queue a stream with data to send. Then call ``send``."""
        self._queue.append(stream)

    def send(self) -> None:
        """Send the uploads in turns of one frame each. A small upload then does not wait for a large one.

        Stops when ``UPLOAD_BATCH`` is reached or the connection's window is closed.
        """
        queue, wire = self._queue, self._wire
        while queue and len(wire.outgoing) < UPLOAD_BATCH and wire.send_window > 0:
            stream = queue.popleft()
            if stream.send_frame():
                queue.append(stream)
            wire.idle_frames = 0  # the server enlarges the windows of an upload by many small frames
