"""An HTTP proxy: it opens tunnels (CONNECT), forwards requests in absolute form, and records both."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any
from urllib.parse import urlsplit

from testbed.behaviours import hold
from testbed.connection import ClientGone, ReceivedRequest, ServerConnection
from testbed.scripted import Script, ScriptedServer

__all__ = ["Address", "Proxy", "relay"]

Address = tuple[str, int]


class Proxy(ScriptedServer):
    """An HTTP proxy.

    Clients must send ``credentials`` ("user:password"), or they get 407. With ``refuse`` every request gets
    that status; with ``stall`` none gets a response. ``before_tunnel`` is a script that is played before a
    tunnel is opened, such as ``until("go")``. ``names`` maps authorities ("llm.test:443") to addresses.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        refuse: int | None = None,
        stall: bool = False,
        before_tunnel: Script | None = None,
        names: dict[str, Address] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(self._serve, **options)
        self.credentials, self.refuse_with, self.before_tunnel = credentials, refuse, before_tunnel
        self.stalls = stall
        self.names = names or {}
        self.tunnels: list[str] = []
        """The authority of each tunnel that was opened."""
        self.forwarded: list[str] = []
        """The URL of each request that was forwarded."""

    def url_with(self, credentials: str) -> str:
        """The proxy's URL with "user:password" in it."""
        return f"{self.scheme}://{credentials}@{self.authority}"

    async def _serve(self, conn: ServerConnection) -> None:
        request = await conn.read_request()
        if self.stalls:
            await hold(conn)
        elif self.refuse_with:
            await conn.respond(self.refuse_with)
        elif not self._admits(request):
            await conn.respond(407, {"Proxy-Authenticate": 'Basic realm="tests"'})
        elif request.method == "CONNECT":
            await self._tunnel(conn, request)
        else:
            await self._forward(conn, request)

    def _admits(self, request: ReceivedRequest) -> bool:
        if self.credentials is None:
            return True
        expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        return request.headers.get("proxy-authorization") == expected

    async def _tunnel(self, conn: ServerConnection, request: ReceivedRequest) -> None:
        if self.before_tunnel:
            await self.before_tunnel(conn)
        async with self._upstream(conn, request.target, 443) as (reader, writer):
            with self.change():
                self.tunnels.append(request.target)
            await conn.send_head(200)
            await relay(conn, reader, writer)

    async def _forward(self, conn: ServerConnection, request: ReceivedRequest) -> None:
        """Forward this request, and all later ones on the connection, to the same upstream."""
        async with self._upstream(conn, urlsplit(request.target).netloc, 80) as (reader, writer):
            answers = asyncio.create_task(_forward_answers(conn, reader))
            try:
                while True:
                    with self.change():
                        self.forwarded.append(request.target)
                    writer.write(_origin_form(request) + request.body)
                    await writer.drain()
                    request = await conn.read_request()
            finally:
                answers.cancel()

    @contextlib.asynccontextmanager
    async def _upstream(self, conn: ServerConnection, authority: str, port: int) -> Any:
        url = urlsplit(f"//{authority}")
        host, port = self.names.get(authority, (url.hostname or "", url.port or port))
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            await conn.respond(502)
            await conn.close()
            raise ClientGone from None
        try:
            yield reader, writer
        finally:
            writer.close()


def _origin_form(request: ReceivedRequest) -> bytes:
    """The head for the upstream: the target without scheme and host, and no headers for the proxy."""
    url = urlsplit(request.target)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    _, *lines = request.head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
    return b"\r\n".join([f"{request.method} {target} HTTP/1.1".encode(), *kept])


async def _forward_answers(conn: ServerConnection, reader: asyncio.StreamReader) -> None:
    """Send the upstream's bytes to the client, and close when it closes."""
    with contextlib.suppress(ClientGone, OSError):
        while data := await reader.read(65536):
            await conn.send(data)
        await conn.close()


async def relay(conn: ServerConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay bytes in both directions until one side ends."""
    answers = asyncio.create_task(_forward_answers(conn, reader))
    try:
        while True:
            writer.write(await conn.read_some())
            await writer.drain()
    except OSError:
        await conn.close()
    finally:
        answers.cancel()
