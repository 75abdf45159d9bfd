"""A connection closed by the pool ends at the server too, even if the server reads nothing."""

from __future__ import annotations

import pytest

from llm_pool.exceptions import WriteTimeout
from testbed.behaviours import early_reply, stop_reading
from tests.fixtures.engine import request_to, until_pool

BODY = b"x" * 8_000_000  # bytes: more than the kernel buffers if the server reads nothing
SMALL_BODY = b"x" * 1_000_000  # bytes: all fit into the kernel's buffers


def held(server) -> int:
    """How many connections the pool has not closed, as the server sees it."""
    return sum(connection.still_held for connection in server.connections)


async def test_an_upload_after_a_write_timeout_ends_at_the_server(serve, engine_pool):
    """Scenarios 1 and 20: bytes that the server has not read do not keep the connection open there."""
    server = serve(stop_reading())
    pool = engine_pool()
    with pytest.raises(WriteTimeout):
        await pool.fetch(request_to(server, BODY, write=0.2))
    await until_pool(pool, lambda: held(server) == 0)


async def test_after_an_early_answer_the_connection_ends_at_the_server(serve, engine_pool):
    """Scenarios 1 and 34: unread bytes of the upload do not keep it open at the server."""
    server = serve(early_reply(413, read_on=False))
    pool = engine_pool()
    answer = await pool.fetch(request_to(server, SMALL_BODY))
    assert answer.status == 413
    await until_pool(pool, lambda: held(server) == 0)


async def test_closing_the_pool_ends_an_upload_at_the_server(serve, engine_pool):
    """Scenarios 1 and 51: the server has stopped reading."""
    server = serve(stop_reading())
    pool = engine_pool()
    exchange = await pool.open(request_to(server, None))
    await exchange.host_loop.arun(exchange.write, SMALL_BODY)
    await until_pool(pool, lambda: held(server) == 1)
    await pool.aclose()
    await until_pool(pool, lambda: held(server) == 0)
