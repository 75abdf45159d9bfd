"""A TCP relay that plays distance: on loopback a round trip costs nothing, so the relay charges for it.

A new connection waits one round trip before anything passes, as a TCP handshake would; every piece then
travels for half a round trip in each direction. A TLS handshake, which costs a real provider's callers one
or two round trips more, is not played.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from demo_project.upstream.tcp_server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE = 64 * 1024
PIECES_UNDERWAY = 64


@contextlib.asynccontextmanager
async def relay(host: str, port: int, round_trip: float) -> AsyncIterator[int]:
    """Relay to ``host`` and ``port`` while the context lasts; yields the loopback port it listens on.

    ``round_trip`` is in seconds.
    """

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        far_reader, far_writer = await asyncio.open_connection(host, port)
        with contextlib.closing(far_writer):
            try:
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(_travel(reader, far_writer, round_trip / 2))
                    directions.create_task(_travel(far_reader, writer, round_trip / 2))
            except* OSError:
                pass  # one side is gone; the other learns it as both are closed

    async with listening(carry) as relay_port:
        yield relay_port


async def _travel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, each piece ``seconds`` after it came; pieces do not wait for one another."""
    clock = asyncio.get_running_loop().time
    underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_UNDERWAY)

    async def arrive() -> None:
        while True:
            due, piece = await underway.get()
            await asyncio.sleep(due - clock())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(arrive())
        while True:
            piece = await reader.read(PIECE)
            await underway.put((clock() + seconds, piece))
            if not piece:
                break
