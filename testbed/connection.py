"""The server's end of one connection, as a script sees it: HTTP where that is handy, bytes where not."""

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
    """The connection is over. Ends the script quietly."""


@dataclass
class ReceivedRequest:
    """A request as it came. ``headers`` have lower-case names; ``head`` is every byte before the body."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int
    head: bytes = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class ServerConnection(asyncio.Protocol):
    """One connection. Each method raises ClientGone once the connection is over; reads drain first."""

    def __init__(self, server: ScriptedServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        """0 for the server's first connection, 1 for the second, ..."""
        self.bytes_received = 0
        self.bytes_sent = 0
        """Bytes the kernel has taken (under TLS: or the transport), before encryption."""
        self.ended_by: str | None = None
        """How it ended: "eof" or "reset" by the client, "server" by us; None while it lasts."""
        self._socket = sock
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._may_write = True
        self._eof = False
        self._transport: asyncio.Transport
        self.taken_up = False
        """Whether there was ever anything to say on it: under TLS, after the handshake."""

    # What the transport tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # So that sent means: the kernel has it. Under TLS asyncio takes 0 for always full.
        transport.set_write_buffer_limits(1 if transport.get_extra_info("ssl_object") else 0)
        self._transport = transport
        self.taken_up = True

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffer += data
        self._news.set()

    def eof_received(self) -> None:
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_by = "eof" if self._eof else "reset" if exc else "server"
        self._news.set()
        # The transport closes the socket when this returns: whoever reads the counters finds it closed.
        asyncio.get_running_loop().call_soon(self.server._connection_ended, self)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._news.set()

    # Reading.

    async def read_some(self) -> bytes:
        """The bytes that are there, or else the next that come."""
        await self._until(lambda: self._buffer)
        return self._take(len(self._buffer))

    async def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        await self._until(lambda: len(self._buffer) >= size)
        return self._take(size)

    async def read_through(self, mark: bytes) -> bytes:
        """All bytes up to and with ``mark``."""
        await self._until(lambda: mark in self._buffer)
        return self._take(self._buffer.index(mark) + len(mark))

    async def read_head(self) -> ReceivedRequest:
        """The next request without its body (``read_body`` reads that); counted at the server."""
        request = await self._read_head()
        self.server._request_came(request)
        return request

    async def read_body(self, request: ReceivedRequest) -> bytes:
        """The body of a request whose head has been read; also put into ``request.body``."""
        if "chunked" in request.headers.get("transfer-encoding", ""):
            body = await self._read_chunks()
        else:
            body = await self.read(int(request.headers.get("content-length", "0")))
        request.body = body
        return body

    async def read_request(self) -> ReceivedRequest:
        """The next request with its body; counted at the server when all of it is there."""
        request = await self._read_head()
        await self.read_body(request)
        self.server._request_came(request)
        return request

    def pause_reading(self) -> None:
        """Takes no more bytes from the kernel: the client's window fills up."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes bytes again."""
        self._transport.resume_reading()

    # Writing.

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has taken every byte."""
        self._check()
        self._transport.write(data)
        await self._until(lambda: self._may_write)
        self.bytes_sent += len(data)

    async def send_head(self, status: int = 200, headers: Headers = (), version: str = "1.1") -> None:
        """A status line and the headers, as given and no others."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        lines = [f"HTTP/{version} {status} {_phrase(status)}", *(f"{k}: {v}" for k, v in pairs)]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def respond(self, status: int = 200, headers: Headers = (), body: bytes = b"") -> None:
        """A whole response with Content-Length, in one write."""
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
        """A whole response, each piece a chunk."""
        await self.send_head(status, {**dict(headers), "Transfer-Encoding": "chunked"})
        if isinstance(pieces, AsyncIterable):
            async for piece in pieces:
                await self.send_chunk(piece)
        else:
            for piece in pieces:
                await self.send_chunk(piece)
        await self.end_chunks(trailers)

    async def send_chunk(self, data: bytes, extension: str = "") -> None:
        """One chunk; ``extension`` is written after its size, with its semicolon."""
        await self.send(f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n")

    async def send_last_chunk(self, data: bytes) -> None:
        """One chunk and the end, in one write: a client that has read the data has it all."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")

    async def end_chunks(self, trailers: Headers = ()) -> None:
        """The last chunk, and the trailers."""
        lines = "".join(f"{k}: {v}\r\n" for k, v in dict(trailers).items())
        await self.send(f"0\r\n{lines}\r\n".encode("latin-1"))

    # Ending and waiting.

    async def close(self) -> None:
        """Ends the connection as a well-behaved server does (TLS close, FIN)."""
        self._transport.close()
        await self._ended()

    async def eof(self) -> None:
        """Sends FIN and nothing before it (no TLS close), and goes on reading."""
        self._check()
        self._socket.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Ends the connection by RST."""
        self._check()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self._ended()

    async def hold(self) -> None:
        """Does nothing until the connection is over; what comes meanwhile is read and left."""
        await self._until(lambda: False)

    async def wait_for(self, gate: Gate | str) -> None:
        """Stands at a gate (the server's, where a name is given) until it opens or the client goes."""
        gate = self.server.gate(gate) if isinstance(gate, str) else gate
        passage = asyncio.ensure_future(gate.passage())
        passage.add_done_callback(lambda _: self._news.set())
        try:
            await self._until(passage.done)
        finally:
            passage.cancel()

    @property
    def gone(self) -> bool:
        """Whether the connection is over."""
        return self.ended_by is not None

    @property
    def still_held(self) -> bool:
        """Whether the client still holds its end, as the kernel knows it now."""
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
            self._news.clear()
            await self._news.wait()

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


# TCP states (tcp(7), TCP_INFO) in which the other end has sent its FIN or RST:
# TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
_CLIENT_LEFT = (6, 7, 8, 9, 11)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unheard Of"
