"""The server's end of one connection, for scripts: methods for HTTP, and for bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.board import Gate
    from testbed.scripted import ScriptedServer

__all__ = ["ClientGone", "Headers", "ReceivedRequest", "ServerConnection"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class ClientGone(Exception):
    """The connection has ended. This error ends the script, and does not fail the test."""


@dataclass
class ReceivedRequest:
    """A request as it was received.

    ``method``      such as "POST"
    ``target``      the second word of the request line, or ``:path``
    ``headers``     by lower-case name
    ``connection``  the number of its connection
    ``head``        every byte before the body; b"" over HTTP/2
    ``body``        without framing; b"" until it has been read
    """

    method: str
    target: str
    headers: dict[str, str]
    connection: int
    head: bytes = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class ServerConnection(asyncio.Protocol):
    """One connection. After its end, methods raise ClientGone; reads first return earlier bytes."""

    def __init__(self, server: ScriptedServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        """0 for the server's first connection, 1 for the second, ..."""
        self.bytes_received = 0
        self.bytes_sent = 0
        """Bytes that the kernel (under TLS, the kernel or the transport) has accepted, before encryption."""
        self.ended_by: str | None = None
        """How it ended: "eof" or "reset" by the client, "server" by this side; None while it is open."""
        self._socket = sock
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self._can_write = True
        self._eof = False
        self._transport: asyncio.Transport
        self.established = False
        """Whether scripts could use it: over TCP once accepted, over TLS after the handshake."""

    # For the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # send() returns once the kernel has all bytes. Under TLS, asyncio treats 0 as always full.
        transport.set_write_buffer_limits(1 if transport.get_extra_info("ssl_object") else 0)
        self._transport = transport
        self.established = True

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffer += data
        self._changed.set()

    def eof_received(self) -> None:
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_by = "eof" if self._eof else "reset" if exc else "server"
        self._changed.set()
        # The transport closes the socket after this returns; the counters change after that.
        asyncio.get_running_loop().call_soon(self.server._connection_ended, self)

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._changed.set()

    # Reading.

    async def read_some(self) -> bytes:
        """Return all bytes that have been received; if there are none, wait for some."""
        await self._until(lambda: self._buffer)
        return self._take(len(self._buffer))

    async def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes."""
        await self._until(lambda: len(self._buffer) >= size)
        return self._take(size)

    async def read_through(self, mark: bytes) -> bytes:
        """Read all bytes up to and including ``mark``."""
        await self._until(lambda: mark in self._buffer)
        return self._take(self._buffer.index(mark) + len(mark))

    async def read_head(self) -> ReceivedRequest:
        """Read the next request without its body (see ``read_body``); the server counts it."""
        request = await self._read_head()
        self.server._request_came(request)
        return request

    async def read_body(self, request: ReceivedRequest) -> bytes:
        """Read the body of a request whose head has been read; store it in ``request.body`` too."""
        if "chunked" in request.headers.get("transfer-encoding", ""):
            body = await self._read_chunks()
        else:
            body = await self.read(int(request.headers.get("content-length", "0")))
        request.body = body
        return body

    async def read_request(self) -> ReceivedRequest:
        """Read the next request with its body; the server counts it when it is complete."""
        request = await self._read_head()
        await self.read_body(request)
        self.server._request_came(request)
        return request

    def cork(self) -> None:
        """Send only full segments until ``uncork``: what is written in between arrives together."""
        self._set_cork(1)

    def uncork(self) -> None:
        """Send what ``cork`` has held back."""
        self._set_cork(0)

    def _set_cork(self, on: int) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)

    def pause_reading(self) -> None:
        """Read no more from the kernel, so that the TCP window fills up."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the kernel again."""
        self._transport.resume_reading()

    # Writing.

    async def send(self, data: bytes) -> None:
        """Send bytes; return once the kernel has accepted all of them."""
        self._check()
        self._transport.write(data)
        await self._until(lambda: self._can_write)
        self.bytes_sent += len(data)

    async def send_head(self, status: int = 200, headers: Headers = (), version: str = "1.1") -> None:
        """Send a status line and exactly these headers."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        lines = [f"HTTP/{version} {status} {_phrase(status)}", *(f"{k}: {v}" for k, v in pairs)]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def respond(self, status: int = 200, headers: Headers = (), body: bytes = b"") -> None:
        """Send a complete response with Content-Length, in one write."""
        pairs = dict(headers)
        pairs.setdefault("Content-Length", str(len(body)))
        head = f"HTTP/1.1 {status} {_phrase(status)}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in pairs.items())
        await self.send(head.encode("latin-1") + b"\r\n" + body)

    async def respond_chunked(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        status: int = 200,
        headers: Headers = (),
        trailers: Headers = (),
    ) -> None:
        """Send a complete response, each piece a chunk."""
        await self.send_head(status, {**dict(headers), "Transfer-Encoding": "chunked"})
        if isinstance(pieces, AsyncIterable):
            async for piece in pieces:
                await self.send_chunk(piece)
        else:
            for piece in pieces:
                await self.send_chunk(piece)
        await self.end_chunks(trailers)

    async def send_chunk(self, data: bytes, extension: str = "") -> None:
        """Send one chunk; ``extension`` (with its semicolon) is written after its size."""
        await self.send(f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n")

    async def send_last_chunk(self, data: bytes) -> None:
        """Send one chunk and the end of the body in one write: a client reads both together."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")

    async def end_chunks(self, trailers: Headers = ()) -> None:
        """Send the last chunk and the trailers."""
        lines = "".join(f"{k}: {v}\r\n" for k, v in dict(trailers).items())
        await self.send(f"0\r\n{lines}\r\n".encode("latin-1"))

    # Ending and waiting.

    async def close(self) -> None:
        """Close the connection (TLS close, then FIN); return once it has ended."""
        self._transport.close()
        await self._ended()

    async def eof(self) -> None:
        """Send FIN without a TLS close, and go on reading."""
        self._check()
        self._socket.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Abort the connection with RST."""
        self._check()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self._ended()

    async def hold(self) -> None:
        """Do nothing until the connection has ended; received bytes stay in the buffer."""
        await self._until(lambda: False)

    async def wait_for(self, gate: Gate | str) -> None:
        """Wait at a gate, or the server's gate of that name, until it lets this script through.

        Raises ClientGone if the connection ends first.
        """
        gate = self.server.gate(gate) if isinstance(gate, str) else gate
        passage = asyncio.ensure_future(gate.passage())
        passage.add_done_callback(lambda _: self._changed.set())
        try:
            await self._until(passage.done)
        finally:
            passage.cancel()

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self.ended_by is not None

    @property
    def still_held(self) -> bool:
        """Whether the client's end is still open, by the kernel's current TCP state."""
        if self.gone or self._socket.fileno() < 0:
            return False
        if not hasattr(socket, "TCP_INFO") or self._socket.family == socket.AF_UNIX:
            return True
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _CLIENT_LEFT

    def _check(self) -> None:
        if self.gone or self._transport.is_closing():
            raise ClientGone

    async def _until(self, predicate: Any) -> None:
        while not predicate():
            if self.gone:
                raise ClientGone
            self._changed.clear()
            await self._changed.wait()

    async def _ended(self) -> None:
        await self._until(lambda: self.gone)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _read_head(self) -> ReceivedRequest:
        head = await self.read_through(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        return ReceivedRequest(method, target, headers, self.number, head)

    async def _read_chunks(self) -> bytes:
        body = b""
        while size := int((await self.read_through(b"\r\n")).split(b";")[0], 16):
            body += (await self.read(size + 2))[:-2]
        while await self.read_through(b"\r\n") != b"\r\n":
            pass  # trailers
        return body

    def __repr__(self) -> str:
        return f"<connection {self.number}: {self.ended_by or 'open'}>"


# TCP states (tcp(7), TCP_INFO) after the client's FIN or RST:
# TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
_CLIENT_LEFT = (6, 7, 8, 9, 11)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unheard Of"
