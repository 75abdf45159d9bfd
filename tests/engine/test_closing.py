"""A connection that is over for us is over at the server too, even at one that reads nothing."""

from __future__ import annotations

import pytest

from llm_pool.exceptions import WriteTimeout
from testbed.behaviours import early_reply, stop_reading
from tests.fixtures.engine import request_to, until_pool

BODY = b"x" * 8_000_000  # more than the kernel takes for a server that reads nothing
SMALL_BODY = b"x" * 1_000_000  # all of it fits into the kernel's buffers


def held(server) -> int:
    return sum(connection.still_held for connection in server.connections)


async def test_an_upload_that_is_given_up_ends_at_the_server(serve, engine_pool):
    """Scenarios 1 and 20: what the server has not taken does not keep the connection open there."""
    server = serve(stop_reading())
    pool = engine_pool()
    with pytest.raises(WriteTimeout):
        await pool.fetch(request_to(server, BODY, write=0.2))
    await until_pool(pool, lambda: held(server) == 0)


async def test_an_early_answer_ends_the_connection_at_a_server_that_reads_no_further(serve, engine_pool):
    """Scenarios 1 and 34: the upload that waits in the kernel does not keep the connection open there."""
    server = serve(early_reply(413, read_on=False))
    pool = engine_pool()
    answer = await pool.fetch(request_to(server, SMALL_BODY))
    assert answer.status == 413
    await until_pool(pool, lambda: held(server) == 0)


async def test_a_closed_pool_leaves_no_upload_behind(serve, engine_pool):
    """Scenarios 1 and 51: a call in the middle of its upload when the pool closes."""
    server = serve(stop_reading())
    pool = engine_pool()
    exchange = await pool.open(request_to(server, None))
    await exchange.host_loop.arun(exchange.write, SMALL_BODY)
    await until_pool(pool, lambda: held(server) == 1)
    await pool.aclose()
    await until_pool(pool, lambda: held(server) == 0)
