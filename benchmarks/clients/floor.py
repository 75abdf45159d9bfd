"""The floor: sends the same request and parses the same JSON, and does nothing else.

No Python client on the same event loop can cost much less.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httptools

from benchmarks.clients.answers import text_of, text_of_line
from benchmarks.clients.base import BODY, KEY, STREAM_BODY, AsyncClient, Target

__all__ = ["Floor"]


class Floor(AsyncClient):
    """A bare ``asyncio.Protocol`` with httptools. The requests are encoded before the first call.

    It has no checks, no timeouts and no error handling: it is for comparison, not for use.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._url = urlsplit(target.completions)
        self._tls = ssl.create_default_context(cafile=target.ca_file) if target.ca_file else None
        self._request = self._encoded(BODY)
        self._stream_request = self._encoded(STREAM_BODY)
        self._idle: list[_Connection] = []

    async def prewarm(self) -> None:
        self._idle.append(await self._dial())

    async def complete(self) -> str:
        connection = self._idle.pop() if self._idle else await self._dial()
        body = await connection.fetch(self._request)
        self._idle.append(connection)
        return text_of(json.loads(body))

    async def stream(self) -> AsyncIterator[str]:
        connection = self._idle.pop() if self._idle else await self._dial()
        connection.send(self._stream_request)
        while data := await connection.read():
            for event in data[:-2].split(b"\n\n"):
                if text := text_of_line(event):
                    yield text
        self._idle.append(connection)

    async def _dial(self) -> _Connection:
        loop = asyncio.get_running_loop()
        host, port = self._url.hostname, self._url.port
        _, connection = await loop.create_connection(_Connection, host, port, ssl=self._tls)
        return connection

    def _encoded(self, body: dict[str, object]) -> bytes:
        content = json.dumps(body).encode()
        return (
            f"POST {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content


class _Connection(asyncio.Protocol):
    """One connection, with one exchange at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: deque[bytes] = deque()
        self._complete = False
        self._parser = httptools.HttpResponseParser(self)

    async def fetch(self, request: bytes) -> bytes:
        self.send(request)
        await self._wait_complete()
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def send(self, request: bytes) -> None:
        self._complete = False
        self.transport.write(request)

    async def read(self) -> bytes:
        """The next piece of the body; b"" at its end."""
        while not self._pieces and not self._complete:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._pieces.popleft() if self._pieces else b""

    async def _wait_complete(self) -> None:
        while not self._complete:
            self._waiter = self._loop.create_future()
            await self._waiter

    # Called by the event loop and the parser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionResetError("closed by the server"))

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._complete = True
