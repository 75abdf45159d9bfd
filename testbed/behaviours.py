"""Scripts for servers, to combine: ``serve(steps(json_reply(), until("go"), reset))``.

A script that sends a response reads one request first, except ``respond``. A server repeats its script until
the connection ends, so ``serve(json_reply())`` is a complete keep-alive server.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.board import Gate
    from testbed.connection import Headers, ServerConnection
    from testbed.scripted import Script

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}

# Combining scripts.


def steps(*scripts: Script) -> Script:
    """Play the scripts one after another, on the same connection."""

    async def script(conn: ServerConnection) -> None:
        for each in scripts:
            await each(conn)

    return script


def times(count: int, script: Script) -> Script:
    """Play the script ``count`` times on the same connection."""
    return steps(*[script] * count)


def per_connection(*scripts: Script) -> Script:
    """Play the first script on the server's first connection, and so on; the last on all further ones."""

    async def script(conn: ServerConnection) -> None:
        await scripts[min(conn.number, len(scripts) - 1)](conn)

    return script


# Without reading a request: what happens to an idle connection.


async def close(conn: ServerConnection) -> None:
    """Send FIN, after a TLS close if there is TLS."""
    await conn.close()


async def fin(conn: ServerConnection) -> None:
    """Send FIN without a TLS close, and go on reading."""
    await conn.eof()


async def reset(conn: ServerConnection) -> None:
    """Send RST."""
    await conn.reset()


async def hold(conn: ServerConnection) -> None:
    """Do nothing until the connection has ended."""
    await conn.hold()


def send(data: bytes) -> Script:
    """Send bytes, without reading a request."""

    async def script(conn: ServerConnection) -> None:
        await conn.send(data)

    return script


def until(gate: Gate | str) -> Script:
    """Wait until the gate (or the server's gate of that name) opens."""

    async def script(conn: ServerConnection) -> None:
        await conn.wait_for(gate)

    return script


def mark(name: str) -> Script:
    """Count a mark at the server; a test can wait for it."""

    async def script(conn: ServerConnection) -> None:
        conn.server.mark(name)

    return script


# Complete and correct responses.


def reply(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """Read a request and send a response with Content-Length."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.respond(status, headers, body)

    return script


def json_reply(value: Any = None, status: int = 200, headers: Headers = ()) -> Script:
    """Read a request and send ``value`` as JSON; ``{"ok": true}`` by default."""
    body = json.dumps({"ok": True} if value is None else value).encode()
    return reply(status, body, {**JSON, **dict(headers)})


async def echo(conn: ServerConnection) -> None:
    """Read a request and send it back as JSON: method, target, headers, body (latin-1), connection number."""
    request = await conn.read_request()
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
        "connection": request.connection,
    }
    await conn.respond(200, JSON, json.dumps(seen).encode())


def chunked(*pieces: bytes, status: int = 200, headers: Headers = (), trailers: Headers = ()) -> Script:
    """Read a request and send a response in chunks."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.respond_chunked(pieces, status, headers, trailers)

    return script


def until_close(body: bytes, *, version: str = "1.0", headers: Headers = ()) -> Script:
    """Read a request and send a response whose body ends with the connection."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, headers, version)
        await conn.send(body)
        await conn.close()

    return script


def interim(*statuses: int, then: Script) -> Script:
    """Read a head, send a response of each 1xx status, read the body, play ``then`` (see ``respond``)."""

    async def script(conn: ServerConnection) -> None:
        request = await conn.read_head()
        for status in statuses:
            await conn.send_head(status)
        await conn.read_body(request)
        await then(conn)

    return script


def respond(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """Send a response as ``reply`` does, without reading a request first."""

    async def script(conn: ServerConnection) -> None:
        await conn.respond(status, headers, body)

    return script


def expect_continue(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """Read a head, send 100 Continue, read the body, send a response."""
    return interim(100, then=respond(status, body, headers))


def events(*pieces: bytes, pace: Gate | str | None = None) -> Script:
    """Read a request and send exactly these bytes as an event stream, each piece a chunk.

    With ``pace`` each piece waits at that gate. The last piece and the end of the body are one write.
    """

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        for number, piece in enumerate(pieces, 1):
            if pace is not None:
                await conn.wait_for(pace)
            await (conn.send_chunk(piece) if number < len(pieces) else conn.send_last_chunk(piece))

    return script


# Misbehaviour.


def raw(*pieces: bytes) -> Script:
    """Read a request and send exactly these bytes, a write for each piece."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        for piece in pieces:
            await conn.send(piece)

    return script


garbage = steps(raw(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n"), close)
"""Read a request, send bytes that are not HTTP, close."""

stall = steps(raw(), hold)
"""Read a request and never respond."""

stall_in_head = steps(raw(b"HTTP/1.1 200 OK\r\nContent-"), hold)
"""Read a request, send half a head and then nothing."""


def close_after(count: int, script: Script) -> Script:
    """Play the script ``count`` times, then close, without a ``Connection: close`` header before."""
    return steps(times(count, script), close)


def cut(body: bytes, sent: int, then: Script = close) -> Script:
    """Send the Content-Length of ``body``, but only its first ``sent`` bytes. Then play ``then``."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": str(len(body))})
        await conn.send(body[:sent])
        await then(conn)

    return script


def cut_chunked(*pieces: bytes, then: Script = close) -> Script:
    """Send the pieces as chunks without the last chunk, then play ``then``."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Transfer-Encoding": "chunked"})
        for piece in pieces:
            await conn.send_chunk(piece)
        await then(conn)

    return script


def early_reply(
    status: int = 413, body: bytes = b"", headers: Headers = (), *, read_on: bool = True
) -> Script:
    """Respond after the head, before the body arrives; then read on, or stop reading (``read_on=False``)."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_head()
        if not read_on:
            conn.pause_reading()
        await conn.respond(status, headers, body)
        while read_on:
            await conn.read_some()
        await conn.hold()

    return script


def stop_reading(gate: Gate | str | None = None) -> Script:
    """Read a head, then nothing until the gate opens; then read the body and respond with 200.

    Without a gate, never read again.
    """

    async def script(conn: ServerConnection) -> None:
        request = await conn.read_head()
        conn.pause_reading()
        if gate is None:
            await conn.hold()
        else:
            await conn.wait_for(gate)
        conn.resume_reading()
        await conn.read_body(request)
        await conn.respond(200)

    return script


def endless(piece: bytes = b"x" * 65536, head: bytes = b"") -> Script:
    """Read a request and send a head and an endless body in chunks.

    With ``head``, send these bytes instead of a head, and then ``piece`` endlessly, without chunk framing.
    """

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        if head:
            await conn.send(head)
        else:
            await conn.send_head(200, {"Transfer-Encoding": "chunked"})
        while True:
            await (conn.send(piece) if head else conn.send_chunk(piece))

    return script
