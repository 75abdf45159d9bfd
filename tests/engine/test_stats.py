"""``stats()`` matches what the server counted."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from llm_pool.engine.stats.histogram import BOUNDS, Histogram
from llm_pool.exceptions import ConnectFailed, PoolFull
from tests.fixtures.callers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

ONE = {"max_connections": 1, "max_keepalive_connections": 1, "max_waiting": 1}


async def test_counters_match_what_the_server_saw(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    for _ in range(5):
        await pool.acomplete("hello")
    stats = pool.stats()
    assert stats.requests == len(upstream.requests) == 5
    assert stats.opened == upstream.connections_accepted == 1
    assert stats.reused == 4
    assert stats.queued == 0  # the first call waited only for its own dial
    assert stats.bytes_sent == sum(len(request.body) for request in upstream.requests)
    assert stats.bytes_received > 5 * len("You said hello.")
    assert (stats.input_tokens, stats.output_tokens) == (5 * 3, 5 * 1)
    for spread, count in ((stats.wait, 5), (stats.dial, 1), (stats.first_byte, 5), (stats.total, 5)):
        assert spread.count == count
    assert stats.total.total >= stats.first_byte.total > 0
    assert stats.oldest_connection > 0
    assert (stats.streams, stats.longest_wait, stats.cancelled, stats.replays) == (0, 0.0, 0, 0)


async def test_gauges_count_streams_and_waiters(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, LIMITS=ONE)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as stream:
        await anext(stream)
        waiter = asyncio.create_task(pool.acomplete("hello"))
        await until(lambda: pool.stats().waiting == 1)
        before = pool.stats()
        assert (before.streams, before.in_use, before.utilization) == (1, 1, 1.0)
        await until(lambda: pool.stats().longest_wait > before.longest_wait)
        with pytest.raises(PoolFull):
            await pool.acomplete("hello")
        waiter.cancel()
        await asyncio.wait([waiter])
    await until(lambda: pool.stats().cancelled == 2)  # the waiter, and the unfinished stream
    stats = pool.stats()
    assert (stats.queued, stats.refused, stats.waiting, stats.longest_wait) == (1, 1, 0, 0.0)
    assert stats.wait.count == 1


async def test_dial_failures_are_counted_by_kind(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    upstream.refuse()
    pool = configure(upstream)
    with pytest.raises(ConnectFailed):
        await pool.acomplete("hello")
    assert pool.stats().dial_failures == {"ConnectFailed": 1}
    assert pool.stats().dial.count == 0


def test_quantiles_are_the_bounds_of_their_buckets() -> None:
    histogram = Histogram()
    assert histogram.spread().quantile(0.99) == 0.0
    for _ in range(99):
        histogram.record(0.3)
    histogram.record(1e6)
    spread = histogram.spread()
    assert spread.quantile(0.5) == spread.quantile(0.99) == 0.5
    assert spread.quantile(1.0) == math.inf
    assert len(spread.counts) == len(BOUNDS) + 1
    assert spread.mean == pytest.approx((99 * 0.3 + 1e6) / 100)
