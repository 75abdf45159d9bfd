"""A TCP proxy that counts connections and requests. The counts are a check on the pool's own statistics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import httptools

from demo_project.upstream.tcp_server import tcp_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

CHUNK_SIZE = 64 * 1024  # bytes
POOL_USER_AGENT = b"llm_pool/"  # the start of the pool's User-Agent header


class Count:
    """Connections and requests of one kind of client."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.reuses = 0  # requests on a connection that has carried another request before
        self.in_progress = 0  # requests whose response is not complete yet
        self.first_byte = 0.0  # seconds from a request to the first byte of its body, summed over requests


class Counts:
    """Counts of the pool, and of all other clients (the agent page's httpx clients, for example)."""

    def __init__(self) -> None:
        self.pool = Count()
        self.others = Count()

    def as_json(self) -> bytes:
        """Return ``{"pool": {...}, "others": {...}}``, each with the attributes of a ``Count``."""
        return json.dumps({"pool": vars(self.pool), "others": vars(self.others)}).encode()


class _Connection:
    """Counts one client's connection, its requests and its responses."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        # The pool may connect in advance; another client sends a request at once, with its User-Agent.
        self._count = counts.pool
        self._count.connections += 1
        self._used = False
        self.request_in_progress = False
        self.responses = 0
        self._request_time: float | None = None

    def start_request(self, user_agent: bytes) -> None:
        if not user_agent.startswith(POOL_USER_AGENT) and self._count is self._counts.pool:
            self._count.connections -= 1
            self._count = self._counts.others
            self._count.connections += 1
        self._count.requests += 1
        self._count.reuses += self._used
        self._count.in_progress += 1
        self._used = self.request_in_progress = True
        self._request_time = time.monotonic()

    def receive_body(self) -> None:
        if self._request_time is not None:
            self._count.first_byte += time.monotonic() - self._request_time
            self._request_time = None

    def end_request(self) -> None:
        if self.request_in_progress:
            self.request_in_progress = False
            self.responses += 1
            self._count.in_progress -= 1


class _RequestReader:
    """Parses the requests of a connection. ``parser`` calls the ``on_...`` methods."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._user_agent = b""
        self.parser = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"user-agent":
            self._user_agent = value

    def on_headers_complete(self) -> None:
        self._connection.start_request(self._user_agent)


class _ResponseReader:
    """Parses the responses of a connection. ``parser`` calls the ``on_...`` methods."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, _data: bytes) -> None:
        self._connection.receive_body()

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() >= 200:
            self._connection.end_request()


@contextlib.asynccontextmanager
async def counting_proxy(
    host: str, port: int, counts: Counts, *, reconnect: bool = False
) -> AsyncIterator[int]:
    """Forward connections to ``host`` and ``port`` while the context lasts; yields the loopback port.

    With ``reconnect`` the proxy opens a new connection to the server for each request, and keeps the client's
    connection open. This is for a server that closes connections without announcing it.
    """

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(counts)
        parse_requests = _RequestReader(connection).parser.feed_data
        parse_responses = _ResponseReader(connection).parser.feed_data

        async def forward_from(first_chunk: bytes) -> None:
            """Connect to the server and forward, until a side closes or the response ends (``reconnect``)."""
            responses = connection.responses
            server_reader, server_writer = await asyncio.open_connection(host, port)
            with contextlib.closing(server_writer):
                parse_requests(first_chunk)
                server_writer.write(first_chunk)
                await _until_one_returns(
                    _copy(reader, server_writer, parse_requests),
                    _copy(
                        server_reader,
                        writer,
                        parse_responses,
                        lambda: not reconnect or connection.responses == responses,
                    ),
                )

        try:
            while not connection.request_in_progress and (chunk := await reader.read(CHUNK_SIZE)):
                await forward_from(chunk)
        finally:
            connection.end_request()

    async with tcp_server(forward) as proxy_port:
        yield proxy_port


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parse: Callable[[bytes], None],
    should_continue: Callable[[], bool] = lambda: True,
) -> None:
    """Copy and parse until the end of ``reader``, or until ``should_continue`` is false before a read."""
    while should_continue() and (chunk := await reader.read(CHUNK_SIZE)):
        parse(chunk)
        writer.write(chunk)
        await writer.drain()


async def _until_one_returns(*directions: Coroutine[Any, Any, None]) -> None:
    """Run both directions until one of them returns or raises, and cancel the other one."""
    tasks = [asyncio.create_task(direction) for direction in directions]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve_counts(counts: Counts) -> AsyncIterator[int]:
    """Answer every HTTP request with the counts as JSON while the context lasts; yields the loopback port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            body = counts.as_json()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()

    async with tcp_server(answer) as port:
        yield port
