"""A call on a connection whose transport has failed, before the event loop has reported the failure."""

from __future__ import annotations

import pytest

from llm_pool.exceptions import ReadFailed
from testbed import behaviours, http2
from tests.fixtures.engine import request_to
from tests.fixtures.internals import entries_of

SCRIPTS = {False: behaviours.reply(), "prior-knowledge": http2.http2(http2.reply())}


@pytest.mark.usefixtures("server_loop")
@pytest.mark.parametrize("version", SCRIPTS, ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_an_upload_on_a_closing_connection_fails_as_unsent(serve, engine_pool, version, pieces):
    """Neither with an error of h2, nor with one about the caller's body."""
    server = serve(SCRIPTS[version])
    pool = engine_pool(http2=version)
    assert (await pool.fetch(request_to(server))).status == 200
    [entry] = entries_of(pool)
    entry.connection.transport.abort()
    exchange = await pool.open(request_to(server, body=None))

    async def upload():
        for _ in range(pieces):
            await exchange.write(b"a piece")
        await exchange.finish()
        await exchange.head()

    with pytest.raises(ReadFailed):
        await upload()
    assert exchange.unsent
    assert len(server.requests) == 1
    assert (await pool.fetch(request_to(server))).status == 200


@pytest.mark.usefixtures("server_loop")
@pytest.mark.parametrize("cancelled", [0, 1])
async def test_each_call_on_a_closing_connection_fails(serve, engine_pool, cancelled):
    """HTTP/2: also if another call on the connection was cancelled before."""
    server = serve(SCRIPTS["prior-knowledge"])
    pool = engine_pool(http2="prior-knowledge")
    assert (await pool.fetch(request_to(server))).status == 200
    [entry] = entries_of(pool)
    entry.connection.transport.abort()
    exchanges = [await pool.open(request_to(server, body=None)) for _ in range(2)]
    exchanges.pop(cancelled).close()
    exchanges.append(await pool.open(request_to(server, body=None)))
    for exchange in exchanges:
        with pytest.raises(ReadFailed):
            await exchange.head()
