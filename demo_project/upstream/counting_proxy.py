"""Counts what reaches the upstream with eyes of its own: what the pool shows can be held against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import httptools

from demo_project.upstream.tcp_server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

PIECE = 64 * 1024
POOL = b"llm_pool/"  # what the pool's user agent begins with


class Count:
    """Connections and requests of one kind of caller.

    ``first_byte`` is the time in seconds, of all requests together, from a request's coming until the first
    byte of its answer's body.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.reuses = 0  # requests on a connection that had carried one before
        self.in_progress = 0
        self.first_byte = 0.0


class Counts:
    """All that has come: from the pool, and from others, who are not the pool's to show."""

    def __init__(self) -> None:
        self.pool = Count()
        self.others = Count()

    def as_json(self) -> bytes:
        """For whoever compares."""
        return json.dumps({"pool": vars(self.pool), "others": vars(self.others)}).encode()


class _Connection:
    """One connection: whose it is, and whether a request is in progress on it."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._count = counts.pool  # until it is known better: others do not connect without a request
        self._count.connections += 1
        self._used = False
        self.busy = False
        self.answers = 0
        self._asked_at: float | None = None

    def asked(self, agent: bytes) -> None:
        if not agent.startswith(POOL) and self._count is self._counts.pool:
            self._count.connections -= 1
            self._count = self._counts.others
            self._count.connections += 1
        self._count.requests += 1
        self._count.reuses += self._used
        self._count.in_progress += 1
        self._used = self.busy = True
        self._asked_at = time.monotonic()

    def first_byte(self) -> None:
        if self._asked_at is not None:
            self._count.first_byte += time.monotonic() - self._asked_at
            self._asked_at = None

    def over(self) -> None:
        if self.busy:
            self.busy = False
            self.answers += 1
            self._count.in_progress -= 1


class _Requests:
    """Reads the requests off a connection; ``parser`` calls it back."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._agent = b""
        self.parser = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"user-agent":
            self._agent = value

    def on_headers_complete(self) -> None:
        self._connection.asked(self._agent)


class _Responses:
    """Reads the responses off a connection; ``parser`` calls it back."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, _data: bytes) -> None:
        self._connection.first_byte()

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() >= 200:
            self._connection.over()


@contextlib.asynccontextmanager
async def counting(host: str, port: int, counts: Counts, *, renewed: bool = False) -> AsyncIterator[int]:
    """Pass connections on to ``host`` and ``port`` while the context lasts; yields the loopback port.

    With ``renewed`` each request has a connection of its own from here on: to a server that closes after an
    answer and does not say so. Who is connected here keeps the connection.
    """

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(counts)
        look_there = _Requests(connection).parser.feed_data
        look_back = _Responses(connection).parser.feed_data

        async def carry_from(piece: bytes) -> None:
            before = connection.answers
            onward_reader, onward_writer = await asyncio.open_connection(host, port)
            with contextlib.closing(onward_writer):
                look_there(piece)
                onward_writer.write(piece)
                there = _pass_on(reader, onward_writer, look_there)
                back = _pass_on(
                    onward_reader, writer, look_back, lambda: not renewed or connection.answers == before
                )
                await _until_one_ends(there, back)

        try:
            while not connection.busy and (piece := await reader.read(PIECE)):
                await carry_from(piece)
        finally:
            connection.over()

    async with listening(carry) as own_port:
        yield own_port


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    look: Callable[[bytes], None],
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    while goes_on() and (piece := await reader.read(PIECE)):
        look(piece)
        writer.write(piece)
        await writer.drain()


async def _until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def told(counts: Counts) -> AsyncIterator[int]:
    """Tell the counts to whoever asks by HTTP while the context lasts; yields the loopback port."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            body = counts.as_json()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()

    async with listening(tell) as port:
        yield port
