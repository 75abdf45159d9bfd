"""A TCP relay that simulates distance by adding latency, because a round trip on loopback costs nothing.

A new connection waits one round trip before data passes, like a TCP handshake. Data then takes half a round
trip in each direction. A TLS handshake, which adds one or two round trips at a real provider, is not
simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from demo_project.upstream.tcp_server import tcp_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHUNK_SIZE = 64 * 1024  # bytes
MAX_CHUNKS_IN_TRANSIT = 64  # per direction


@contextlib.asynccontextmanager
async def relay(host: str, port: int, round_trip: float) -> AsyncIterator[int]:
    """Relay to ``host`` and ``port`` while the context lasts; yields the loopback port to connect to.

    ``round_trip`` is in seconds.
    """

    async def relay_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        far_reader, far_writer = await asyncio.open_connection(host, port)
        with contextlib.closing(far_writer):
            try:
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(_copy_delayed(reader, far_writer, round_trip / 2))
                    directions.create_task(_copy_delayed(far_reader, writer, round_trip / 2))
            except* OSError:
                pass  # one side has disconnected; both connections are closed now

    async with tcp_server(relay_connection) as relay_port:
        yield relay_port


async def _copy_delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Copy until the end of ``reader``: write each chunk ``delay`` seconds after it was read."""
    clock = asyncio.get_running_loop().time
    in_transit: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_CHUNKS_IN_TRANSIT)

    async def deliver() -> None:
        while True:
            due, chunk = await in_transit.get()
            await asyncio.sleep(due - clock())
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        while True:
            chunk = await reader.read(CHUNK_SIZE)
            await in_transit.put((clock() + delay, chunk))
            if not chunk:
                break
