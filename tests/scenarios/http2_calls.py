"""Pools and calls for the HTTP/2 scenarios."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from testbed.http2 import Stream
from tests.fixtures.callers import started
from tests.fixtures.engine import request_to

if TYPE_CHECKING:
    from llm_pool.engine.pool import Pool
    from llm_pool.engine.request import WholeResponse
    from testbed import ScriptedServer
    from testbed.http2 import Answer, Peer

__all__ = ["calls", "gated", "peer", "peers", "random_bytes", "start_call", "start_calls_in_order"]


def gated(gate: str, body: bytes = b"ok") -> Answer:
    """Read the request, wait at the gate, then respond."""

    async def answer(stream: Stream) -> None:
        await stream.body()
        await stream.wait_for(gate)
        await stream.respond(body=body)

    return answer


def peer(server: ScriptedServer, number: int = 0) -> Peer:
    """Return the server's end of connection ``number``, counted from 0."""
    found: Peer = server.connections[number].peer  # type: ignore[attr-defined]
    return found


def peers(server: ScriptedServer) -> list[Peer]:
    """Return the server's ends of all connections that have begun to speak HTTP/2."""
    return [conn.peer for conn in server.connections if hasattr(conn, "peer")]


def start_call(pool: Pool, server: ScriptedServer, **options: Any) -> asyncio.Task[WholeResponse]:
    """Start a call, and return its task."""
    return asyncio.create_task(pool.fetch(request_to(server, **options)))


def calls(
    pool: Pool, server: ScriptedServer, count: int, first: int = 0
) -> list[asyncio.Task[WholeResponse]]:
    """Start ``count`` calls to /0, /1, ..., counted from ``first``, and return their tasks."""
    return [start_call(pool, server, target=f"/{first + number}") for number in range(count)]


async def start_calls_in_order(
    pool: Pool, server: ScriptedServer, count: int
) -> list[asyncio.Task[WholeResponse]]:
    """As ``calls``, but start each call when the server has the request before: streams in this order.

    Otherwise the first call, which waits for the dial, may be sent after a call that finds the connection.
    """
    targets = [f"/{number}" for number in range(count)]
    return [await started(server, pool.fetch(request_to(server, target=target))) for target in targets]


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Return ``size`` random bytes, the same for each ``seed``."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def h2_pool(engine_pool: Any) -> Any:
    """``engine_pool`` for servers that speak HTTP/2 without TLS (prior knowledge)."""

    def make(**options: Any) -> Pool:
        pool: Pool = engine_pool(http2="prior-knowledge", **options)
        return pool

    return make
