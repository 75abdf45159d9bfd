"""What a server may do to a connection, each in a word: ``serve(steps(json_reply(), until("go"), reset))``.

A behaviour is a script. One that answers reads a single request first, and since a server plays its script
again and again, ``serve(json_reply())`` is a whole keep-alive server. ``steps`` puts behaviours in a row.
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

# Putting together.


def steps(*scripts: Script) -> Script:
    """One after another, on the same connection."""

    async def script(conn: ServerConnection) -> None:
        for each in scripts:
            await each(conn)

    return script


def times(count: int, script: Script) -> Script:
    """The same ``count`` times on the same connection."""
    return steps(*[script] * count)


def per_connection(*scripts: Script) -> Script:
    """The first for the server's first connection, and so on; the last for all that follow."""

    async def script(conn: ServerConnection) -> None:
        await scripts[min(conn.number, len(scripts) - 1)](conn)

    return script


# Without reading: what happens to an idle connection.


async def close(conn: ServerConnection) -> None:
    """FIN, after a TLS close where there is TLS."""
    await conn.close()


async def fin(conn: ServerConnection) -> None:
    """FIN without a TLS close; the server goes on reading."""
    await conn.eof()


async def reset(conn: ServerConnection) -> None:
    """RST."""
    await conn.reset()


async def hold(conn: ServerConnection) -> None:
    """Nothing, for ever."""
    await conn.hold()


def send(data: bytes) -> Script:
    """Bytes, asked for or not."""

    async def script(conn: ServerConnection) -> None:
        await conn.send(data)

    return script


def until(gate: Gate | str) -> Script:
    """Stands still until the gate (or the server's gate of that name) opens."""

    async def script(conn: ServerConnection) -> None:
        await conn.wait_for(gate)

    return script


def mark(name: str) -> Script:
    """Tells the test: it has come so far."""

    async def script(conn: ServerConnection) -> None:
        conn.server.mark(name)

    return script


# Whole and proper answers.


def reply(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """A response with Content-Length."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.respond(status, headers, body)

    return script


def json_reply(value: Any = None, status: int = 200, headers: Headers = ()) -> Script:
    """A JSON response; ``{"ok": true}`` where no value is given."""
    body = json.dumps({"ok": True} if value is None else value).encode()
    return reply(status, body, {**JSON, **dict(headers)})


async def echo(conn: ServerConnection) -> None:
    """A JSON response that says what came: method, target, headers, body (as latin-1), connection."""
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
    """A response in chunks."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.respond_chunked(pieces, status, headers, trailers)

    return script


def until_close(body: bytes, *, version: str = "1.0", headers: Headers = ()) -> Script:
    """A response that ends where the connection ends (HTTP/1.0 unless told)."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, headers, version)
        await conn.send(body)
        await conn.close()

    return script


def interim(*statuses: int, then: Script) -> Script:
    """Reads a head, sends a response of each 1xx status, reads the body, goes on: ``then=respond()``."""

    async def script(conn: ServerConnection) -> None:
        request = await conn.read_head()
        for status in statuses:
            await conn.send_head(status)
        await conn.read_body(request)
        await then(conn)

    return script


def respond(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """As ``reply``, without reading a request first."""

    async def script(conn: ServerConnection) -> None:
        await conn.respond(status, headers, body)

    return script


def expect_continue(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Script:
    """100 Continue on the head, then the body is read and answered."""
    return interim(100, then=respond(status, body, headers))


def events(*pieces: bytes, pace: Gate | str | None = None) -> Script:
    """An event stream of these very bytes, each piece a chunk; the end comes with the last."""

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
    """Reads a request and sends these very bytes, one write each."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        for piece in pieces:
            await conn.send(piece)

    return script


garbage = steps(raw(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n"), close)
"""Answers with bytes that are no HTTP."""

stall = steps(raw(), hold)
"""Reads a request and never answers."""

stall_in_head = steps(raw(b"HTTP/1.1 200 OK\r\nContent-"), hold)
"""Answers half a head and then nothing."""


def close_after(count: int, script: Script) -> Script:
    """FIN after ``count`` answers that promised nothing of the kind."""
    return steps(times(count, script), close)


def cut(body: bytes, sent: int, then: Script = close) -> Script:
    """Promises the whole body by Content-Length, sends its first ``sent`` bytes, then ``then``."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": str(len(body))})
        await conn.send(body[:sent])
        await then(conn)

    return script


def cut_chunked(*pieces: bytes, then: Script = close) -> Script:
    """Sends the pieces as chunks and never the last chunk, then ``then``."""

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
    """Answers on the head, before the body has come; then reads on, or (``read_on=False``) no more."""

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
    """Reads a head, then takes no byte of the body until the gate opens (or ever), then answers 200."""

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
    """A body in chunks without end (or, with ``head``, those bytes and then pieces without end)."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        if head:
            await conn.send(head)
        else:
            await conn.send_head(200, {"Transfer-Encoding": "chunked"})
        while True:
            await (conn.send(piece) if head else conn.send_chunk(piece))

    return script
