"""A SOCKS 5 proxy (RFC 1928) that records the addresses that it was asked for."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

from testbed.connection import ServerConnection
from testbed.proxy import Address, relay
from testbed.scripted import ScriptedServer

__all__ = ["SocksProxy"]

NONE, PASSWORD, NOT_ACCEPTED = 0, 2, 255  # methods of authentication
DOMAIN, ADDRESS_SIZES = 3, {1: 4, 4: 16}  # types of address


class SocksProxy(ScriptedServer):
    """A SOCKS 5 proxy.

    Clients must send ``credentials`` ("user:password"; RFC 1929). With ``reply`` every request gets that
    reply code; with ``stall`` none gets a reply. ``names`` maps authorities ("llm.test:443") to addresses.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        reply: int = 0,
        stall: bool = False,
        names: dict[str, Address] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(self._serve, **options)
        self.credentials, self.reply, self.stalls = credentials, reply, stall
        self.names = names or {}
        self.tunnels: list[str] = []
        """The authority of each tunnel that was asked for."""

    def url_with(self, credentials: str = "", scheme: str = "socks5") -> str:
        """The proxy's URL, with "user:password" in it if given."""
        return f"{scheme}://{credentials}{'@' if credentials else ''}{self.authority}"

    async def _serve(self, conn: ServerConnection) -> None:
        if not await self._admits(conn):
            await conn.close()
            return
        await conn.read(3)  # version, command, reserved
        authority = await _read_address(conn)
        with self.change():
            self.tunnels.append(authority)
        if self.stalls:
            await conn.hold()
        reader, writer = None, None
        if not self.reply:
            host, _, port = authority.rpartition(":")
            reader, writer = await asyncio.open_connection(
                *self.names.get(authority, (host.strip("[]"), int(port)))
            )
        await conn.send(bytes([5, self.reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if reader is None or writer is None:
            await conn.close()
            return
        try:
            await relay(conn, reader, writer)
        finally:
            writer.close()

    async def _admits(self, conn: ServerConnection) -> bool:
        """Choose the method of authentication, and authenticate the client."""
        _, count = await conn.read(2)
        methods = await conn.read(count)
        wanted = NONE if self.credentials is None else PASSWORD
        if wanted not in methods:
            await conn.send(bytes([5, NOT_ACCEPTED]))
            return False
        await conn.send(bytes([5, wanted]))
        if self.credentials is None:
            return True
        await conn.read(1)  # version
        user, password = await _read_text(conn), await _read_text(conn)
        admitted = f"{user}:{password}" == self.credentials
        await conn.send(bytes([1, not admitted]))
        return admitted


async def _read_text(conn: ServerConnection) -> str:
    (size,) = await conn.read(1)
    return (await conn.read(size)).decode()


async def _read_address(conn: ServerConnection) -> str:
    (kind,) = await conn.read(1)
    host = await _read_text(conn) if kind == DOMAIN else await _read_ip(conn, ADDRESS_SIZES[kind])
    return f"{host}:{int.from_bytes(await conn.read(2), 'big')}"


async def _read_ip(conn: ServerConnection, size: int) -> str:
    address = ipaddress.ip_address(await conn.read(size))
    return f"[{address}]" if address.version == 6 else str(address)
