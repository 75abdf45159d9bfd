"""Every engine counts dials and failed dials in the same way."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.engine.loops import portal
from llm_pool.exceptions import ConnectFailed, ConnectTimeout, DNSFailed, PoolClosed, TotalTimeout
from testbed.ports import refused_port, unanswering_port
from tests.fixtures.callers import in_thread, until


async def test_a_dial_is_timed_once(configure, server):
    pool = configure(server)
    for _ in range(3):
        await pool.arequest("GET", "/x")
    stats = pool.stats()
    assert (stats.dial.count, stats.opened) == (1, 1)
    assert 0.0 < stats.dial.total < stats.total.total


async def test_failed_dials_are_counted_by_error(configure, fake_dns):
    with refused_port() as port:
        pool = configure(f"http://127.0.0.1:{port}")
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                await pool.arequest("GET", "/x")
        with pytest.raises(DNSFailed):
            await pool.arequest("GET", "http://unknown.test:1/x")
    stats = pool.stats()
    assert stats.dial_failures == {"ConnectFailed": 2, "DNSFailed": 1}
    assert stats.dial_failure is not None
    assert "unknown.test" in stats.dial_failure
    assert stats.dial.count == 0
    await in_thread(portal.stop)  # ends the thread on which httpcore resolved the name


async def test_a_connect_timeout_counts_as_a_failed_dial(configure):
    with unanswering_port() as port:
        pool = configure(f"http://127.0.0.1:{port}", TIMEOUTS={"connect": 0.1})
        with pytest.raises(ConnectTimeout):
            await pool.arequest("GET", "/x")
    assert pool.stats().dial_failures == {"ConnectTimeout": 1}


async def test_dial_failure_is_none_after_a_successful_dial(configure, server):
    pool = configure(server)
    server.refuse()
    with pytest.raises(ConnectFailed):
        await pool.arequest("GET", "/x")
    assert pool.stats().dial_failure is not None
    server.listen_again()
    await pool.arequest("GET", "/x")
    stats = pool.stats()
    assert (stats.dial_failure, stats.dial_failures) == (None, {"ConnectFailed": 1})
    assert stats.dial.count == 1


@pytest.mark.parametrize("end", ["cancelled", "total timeout", "pool closed"])
async def test_a_call_that_ends_during_its_dial_counts_no_failed_dial(configure, end):
    with unanswering_port() as port:
        pool = configure(
            f"http://127.0.0.1:{port}", TIMEOUTS={"total": 0.2 if end == "total timeout" else 60}
        )
        call = asyncio.create_task(pool.arequest("GET", "/x"))
        if end != "total timeout":
            await until(lambda: pool.stats().dialing or pool.stats().in_use)
        if end == "cancelled":
            call.cancel()
        elif end == "pool closed":
            await pool.aclose()
        with pytest.raises((asyncio.CancelledError, TotalTimeout, PoolClosed)):
            await call
        assert pool.stats().dial_failures == {}


@pytest.mark.kinds(["httpcore-http2"])
async def test_a_dial_shared_by_several_calls_counts_once(configure, server, server_loop):
    """Whether it succeeds or fails. With httpcore only: there each call reports its own dial."""
    pool = configure(server, streams=8)
    server.refuse()
    outcomes = await asyncio.gather(*(pool.arequest("GET", "/x") for _ in range(4)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ConnectFailed}
    assert pool.stats().dial_failures == {"ConnectFailed": 1}
    server.listen_again()
    await asyncio.gather(*(pool.arequest("GET", "/x") for _ in range(4)))
    assert pool.stats().dial.count == 1
