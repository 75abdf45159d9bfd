"""Reports the bytes that httpcore receives, also those from which httpcore makes no event yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpcore

__all__ = ["FrameTracker", "ReportingBackend"]

FRAME_HEADER = 9  # bytes
RESPONSE_FRAMES = (0x0, 0x1, 0x9)  # DATA, HEADERS, CONTINUATION


class ReportingBackend(httpcore.AsyncNetworkBackend):
    """Opens connections through ``backend``. Calls ``on_received`` with the bytes that each one receives."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, on_received: Callable[[bytes], object]) -> None:
        self._backend = backend
        self._on_received = on_received

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(*args, **options), self._on_received)

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_unix_socket(*args, **options), self._on_received)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, on_received: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._on_received = on_received

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._on_received(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(*args, **options), self._on_received)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class FrameTracker:
    """Finds the streams to which received bytes of an HTTP/2 connection belong (RFC 9113, section 4.1)."""

    def __init__(self) -> None:
        self._header = b""  # of the next frame, as far as it has arrived
        self._stream = 0  # of the frame whose payload is arriving; 0 if it is no part of a response
        self._left = 0  # bytes of the payload that have not arrived

    def streams_in(self, data: bytes) -> set[int]:
        """Return the numbers of the streams of whose responses ``data``, the next bytes, has a part."""
        streams: set[int] = set()
        position = 0
        while position < len(data):
            if not self._left:
                piece = data[position : position + FRAME_HEADER - len(self._header)]
                self._header += piece
                position += len(piece)
                if len(self._header) < FRAME_HEADER:
                    break
                self._begin_frame()
            streams.add(self._stream)
            size = min(self._left, len(data) - position)
            self._left -= size
            position += size
        streams.discard(0)
        return streams

    def _begin_frame(self) -> None:
        self._left = int.from_bytes(self._header[:3], "big")
        number = int.from_bytes(self._header[5:], "big") & 0x7FFF_FFFF
        self._stream = number if self._header[3] in RESPONSE_FRAMES else 0
        self._header = b""
