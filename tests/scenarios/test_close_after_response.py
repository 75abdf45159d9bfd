"""Servers that close a connection right after a response whose head allows reuse (scenario 30)."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.http11.keep_alive import (
    CONFIRMATIONS_AFTER_CHUNKED,
    CONFIRMATIONS_AFTER_CLOSE,
    KeepAliveHistory,
)
from llm_pool.exceptions import PoolClosed, ReadFailed
from testbed.behaviours import chunked, close, mark, per_connection, raw, reply, reset, steps, until
from testbed.board import WAIT_SECONDS
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import keep_alive_history_of

WHOLE, IN_CHUNKS = reply(body=b"hello"), chunked(b"hello")


@pytest.fixture
def unlimited_wait(monkeypatch):
    """A call right after a response waits until the server closes the connection, for any length of time."""
    for name in ("WAIT_SECONDS", "EARLY_CLOSE_SECONDS"):
        monkeypatch.setattr(f"llm_pool.engine.http11.keep_alive.{name}", 3600.0)


async def results_in_time(*calls):
    """Return the results of the calls. Raises TimeoutError after ``WAIT_SECONDS``."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await asyncio.gather(*calls)


def record_kept_connections(pool, server):
    """Record kept connections until calls no longer wait for the server to close one."""
    history = history_of(pool, server)
    while history.may_close(chunked=True):
        history.record_kept(chunked=True)


def history_of(pool, server):
    return keep_alive_history_of(pool, request_to(server).origin)


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_queued_calls_survive_a_close_after_a_chunked_answer(
    serve, engine_pool, certificates, each_loop, unlimited_wait, end, secure
):
    """Scenario 30: from the first close on, each call is sent once, on a new connection."""
    server = serve(steps(IN_CHUNKS, until("end"), end), tls=certificates.good if secure else None)
    pool = engine_pool(max_connections=1, tls=TLS(ca_file=certificates.ca_file if secure else None))
    calls = [asyncio.ensure_future(pool.fetch(request_to(server))) for _ in range(5)]
    await calls[0]
    server.gate("end").open()
    responses = await results_in_time(*calls)
    assert [(whole.body, whole.marks.replays) for whole in responses] == [(b"hello", 0)] * 5
    assert [request.connection for request in server.requests] == [0, 1, 2, 3, 4]
    await until_pool(pool, lambda: pool.stats().connections == 0)


@pytest.mark.parametrize("answer", [WHOLE, IN_CHUNKS])
@pytest.mark.parametrize("end", [close, reset])
async def test_a_close_teaches_the_pool_to_wait_for_the_next(
    serve, engine_pool, each_loop, unlimited_wait, answer, end
):
    """Scenario 30: even if the server kept all its connections before."""
    server, pool = serve(steps(answer, until("end"), end)), engine_pool(max_connections=1)
    record_kept_connections(pool, server)
    await pool.fetch(request_to(server))
    server.gate("end").open()
    await until_pool(pool, lambda: pool.stats().connections == 0)
    server.gate("end").shut()
    await assert_queued_calls_wait(pool, server)


@pytest.mark.parametrize("answer", [WHOLE, IN_CHUNKS])
async def test_after_a_call_is_lost_to_a_close_later_calls_wait(
    serve, engine_pool, each_loop, unlimited_wait, answer
):
    """Scenario 30: it must not be sent again, but later calls wait for the close."""
    losing = steps(answer, raw(), close)
    server = serve(per_connection(losing, steps(answer, until("end"), close)))
    pool = engine_pool(max_connections=1)
    record_kept_connections(pool, server)
    await pool.fetch(request_to(server))
    with pytest.raises(ReadFailed, match="without an answer"):
        await pool.fetch(request_to(server))
    await assert_queued_calls_wait(pool, server)


async def assert_queued_calls_wait(pool, server):
    """Assert that queued calls wait for the close of the connection, at the server's gate "end"."""
    calls = [asyncio.ensure_future(pool.fetch(request_to(server))) for _ in range(3)]
    await calls[0]
    server.gate("end").open()
    assert [whole.body for whole in await results_in_time(*calls)] == [b"hello"] * 3


async def test_after_an_answer_with_a_length_no_call_waits(serve, engine_pool, each_loop, unlimited_wait):
    pool, request = engine_pool(), request_to(serve(WHOLE))
    for _ in range(3):
        await results_in_time(pool.fetch(request))
    assert pool.stats().opened == 1


async def test_a_server_that_keeps_its_connections_is_trusted(serve, engine_pool, each_loop, monkeypatch):
    """Also after chunked responses, when it has kept ``CONFIRMATIONS_AFTER_CHUNKED`` connections."""
    server, pool = serve(IN_CHUNKS), engine_pool()
    for _ in range(CONFIRMATIONS_AFTER_CHUNKED + 1):
        assert history_of(pool, server).may_close(chunked=True)
        await pool.fetch(request_to(server))
    monkeypatch.setattr("llm_pool.engine.http11.keep_alive.WAIT_SECONDS", 3600.0)
    await results_in_time(pool.fetch(request_to(server)))
    assert server.connections_accepted == 1


async def test_a_call_may_be_cancelled_while_its_connection_may_close(
    serve, engine_pool, each_loop, unlimited_wait
):
    """Scenario 14: the connection goes to the next call in the queue."""
    server, pool = serve(steps(IN_CHUNKS, until("end"), close)), engine_pool(max_connections=1)
    await pool.fetch(request_to(server))
    first, second = (asyncio.ensure_future(pool.fetch(request_to(server))) for _ in range(2))
    await until_pool(pool, lambda: (pool.stats().in_use, pool.stats().waiting) == (1, 1))
    first.cancel()
    await until_pool(pool, lambda: (pool.stats().in_use, pool.stats().waiting) == (1, 0))
    await until_pool(pool, lambda: pool.stats().cancelled == 1)  # counted when the call has ended
    assert first.cancelled()
    server.gate("end").open()
    [whole] = await results_in_time(second)
    assert whole.body == b"hello"
    assert [request.connection for request in server.requests] == [0, 1]


async def test_a_call_whose_connection_may_close_fails_when_the_pool_closes(
    serve, engine_pool, each_loop, unlimited_wait
):
    """Scenario 51."""
    server, pool = serve(steps(IN_CHUNKS, mark("sent"), until("end"))), engine_pool(max_connections=1)
    await pool.fetch(request_to(server))
    call = asyncio.ensure_future(pool.fetch(request_to(server)))
    await until_pool(pool, lambda: pool.stats().in_use == 1)
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await results_in_time(call)
    assert len(server.requests) == 1


def test_after_a_close_more_confirmations_are_needed():
    """After enough kept connections a close is forgotten: it may have been a restart of the server."""
    history = KeepAliveHistory()
    assert [history.may_close(chunked=chunked) for chunked in (False, True)] == [False, True]
    history.record_early_close(chunked=False)
    for _ in range(CONFIRMATIONS_AFTER_CLOSE - 1):
        history.record_kept(chunked=False)
    assert history.may_close(chunked=False)
    history.record_kept(chunked=False)
    assert not history.may_close(chunked=False)
    history.record_kept(chunked=False)
    assert not history.may_close(chunked=False)
