"""Each call is recorded once, when it ends, whether it succeeds, fails or is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.calling.record import observe, unobserve
from llm_pool.engine.stats.listeners import stats_listeners
from llm_pool.exceptions import (
    AuthenticationFailed,
    ConnectFailed,
    InvalidMessages,
    PoolTimeout,
    ReadFailed,
    StreamInterrupted,
)
from testbed.behaviours import close, json_reply, per_connection, raw, reply, steps
from tests.fixtures.callers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import CallRecord
    from llm_pool.engine.stats.stats import PoolStats
    from testbed import Script, ScriptedServer

ONE = {"max_connections": 1, "max_keepalive_connections": 1}


@contextlib.asynccontextmanager
async def held(pool: LLMPool, upstream: ScriptedServer) -> AsyncIterator[None]:
    """Within the block a stream holds the pool's only connection."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as holder:
        await anext(holder)
        yield
        upstream.gate("token").open()
        async for _ in holder:
            pass


async def start_call(kind: str, pool: LLMPool) -> Any:
    """Make a call of this kind, and wait for its response or its first chunk."""
    if kind == "arequest":
        return await pool.arequest("POST", "/embeddings", json={"messages": [{"content": "hello"}]})
    call = getattr(pool, kind)("hello")
    return await (anext(call) if kind == "astream" else call)


async def test_a_completion_is_recorded_with_its_timing_and_tokens(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    completion = await pool.acomplete("hello", model="another-model")
    await asyncio.to_thread(pool.complete, "hello")
    first, second = records
    assert (first.alias, first.provider, first.model) == ("default", "openai", "another-model")
    assert second.model == "test-model"
    assert (first.operation, first.status_code, first.error, first.replays) == ("complete", 200, None, 0)
    assert first.timing == completion.timing
    assert first.usage == completion.usage
    assert (first.timing.reused, second.timing.reused) == (False, True)


async def test_a_request_to_any_endpoint_is_recorded(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    body = {"messages": [{"content": "hello"}]}
    await pool.arequest("POST", "/embeddings", json=body)
    await asyncio.to_thread(pool.request, "POST", "/embeddings", json=body)
    assert [(r.operation, r.model, r.status_code, r.error) for r in records] == [
        ("request", None, 200, None)
    ] * 2
    assert records[1].timing.reused


async def test_an_error_response_is_recorded_with_its_status(
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
    records: list[CallRecord],
) -> None:
    pool = configure(serve_first(json_reply({"error": {"message": "no"}}, status=401)))
    with pytest.raises(AuthenticationFailed):
        await pool.acomplete("hello")
    (record,) = records
    assert (record.status_code, record.error, record.usage) == (401, "AuthenticationFailed", None)
    assert record.timing.first_byte is not None


async def test_a_pool_timeout_is_recorded_as_time_queued(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(
        upstream, LIMITS={"max_connections": 1, "max_keepalive_connections": 1}, TIMEOUTS={"pool": 0.05}
    )
    # Open the connection for the stream now: a dial may take longer than the pool timeout.
    await pool.arequest("POST", "/embeddings", json={"messages": [{"content": "hello"}]}, timeout=5.0)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as holder:
        await anext(holder)
        with pytest.raises(PoolTimeout):
            await pool.acomplete("hello")
    _, timed_out, _ = records
    assert (timed_out.error, timed_out.status_code) == ("PoolTimeout", None)
    assert timed_out.timing.queued == timed_out.timing.total >= 0.05
    assert pool.stats().pool_timeouts == 1


@pytest.mark.parametrize("kind", ["acomplete", "astream", "arequest"])
async def test_a_call_cancelled_in_the_queue_was_queued_until_then(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream, LIMITS=ONE)
    async with held(pool, upstream):
        waiter = asyncio.create_task(start_call(kind, pool))
        await until(lambda: pool.stats().longest_wait > 0.05)
        waiter.cancel()
        await asyncio.wait([waiter])
    cancelled = records[0]
    assert (cancelled.error, cancelled.timing.dialing) == ("CancelledError", 0.0)
    assert cancelled.timing.queued == cancelled.timing.total >= 0.05


async def test_a_stream_closed_in_the_queue_was_queued_until_then(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream, LIMITS=ONE)
    async with held(pool, upstream):
        stream = pool.stream("hello")
        reader = asyncio.create_task(asyncio.to_thread(list, stream))
        await until(lambda: pool.stats().longest_wait > 0.05)
        stream.close()
        await reader
    assert records[0].timing.queued == records[0].timing.total >= 0.05


async def test_a_call_cancelled_at_the_provider_was_queued_only_before_that(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream, LIMITS=ONE)
    upstream.gate("head").shut()
    upstream.gate("head").admit()
    async with held(pool, upstream):
        stream = pool.astream("hello")
        reader = asyncio.create_task(anext(stream))
        await until(lambda: pool.stats().longest_wait > 0.05)
    await upstream.await_until(lambda s: len(s.requests) == 2)
    await asyncio.sleep(0.05)
    reader.cancel()
    await asyncio.wait([reader])
    timing = records[1].timing
    assert timing.first_byte is None
    assert 0.05 <= timing.queued + timing.dialing <= timing.total - 0.05


@pytest.mark.parametrize("kind", ["acomplete", "astream", "arequest"])
async def test_a_failed_dial_is_recorded_as_time_dialing(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    upstream.refuse()
    pool = configure(upstream)
    with pytest.raises(ConnectFailed):
        await start_call(kind, pool)
    (record,) = records
    assert record.timing.dialing == record.timing.total > 0
    assert record.timing.queued == 0.0


async def test_a_failed_call_is_recorded_with_its_replays(
    configure: Callable[..., LLMPool], serve: Callable[[Script], ScriptedServer], records: list[CallRecord]
) -> None:
    pool = configure(serve(per_connection(steps(reply(), raw(), close), steps(raw(), close))))
    await pool.arequest("GET", "/models")
    with pytest.raises(ReadFailed):
        await pool.arequest("POST", "/embeddings", content=b"{}", headers={"Idempotency-Key": "1"})
    assert [record.replays for record in records] == [0, 1]


async def test_a_call_that_was_never_sent_is_not_recorded(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    with pytest.raises(InvalidMessages):
        await pool.acomplete([{"content": object()}])
    pool.stream("hello").close()
    assert records == []


async def test_a_cancelled_call_is_recorded(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    upstream.gate("head").shut()
    pool = configure(upstream)
    stream = pool.astream("hello")
    task = asyncio.create_task(anext(stream))
    await upstream.await_until(lambda s: len(s.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(r.operation, r.error) for r in records] == [("stream", "CancelledError")]


@pytest.mark.parametrize("kind", ["stream", "astream"])
async def test_a_stream_is_recorded_once_after_its_end(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    stream = getattr(pool, kind)("hello")
    while await stream.astep() if kind == "astream" else await asyncio.to_thread(stream.step):
        assert records == []
    await stream.aclose()
    stream.close()
    (record,) = records
    assert (record.operation, record.error, record.status_code) == ("stream", None, 200)
    assert record.timing.first_token is not None
    assert pool.stats().first_token.count == 1


async def test_a_stream_closed_before_its_end_is_recorded_as_cancelled(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as stream:
        await anext(stream)
        assert records == []
    assert [(r.error, r.status_code) for r in records] == [("CancelledError", 200)]
    await until(lambda: pool.stats().cancelled == 1)


async def test_an_abandoned_stream_is_recorded(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, records: list[CallRecord]
) -> None:
    pool = configure(upstream)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    stream = pool.astream("hello")
    await anext(stream)
    with pytest.warns(ResourceWarning, match="neither read to its end nor closed"):  # noqa: PT031
        del stream  # the last reference to it
        gc.collect()
    await until(lambda: len(records) == 1)
    assert records[0].error == "CancelledError"


async def test_a_broken_stream_is_recorded_with_the_readers_error(
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
    records: list[CallRecord],
) -> None:
    async def cut(conn: object) -> None:
        await conn.read_request()  # type: ignore[attr-defined]
        await conn.send_head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})  # type: ignore[attr-defined]
        await close(conn)  # type: ignore[arg-type]

    pool = configure(serve_first(cut))
    with pytest.raises(StreamInterrupted):
        async for _ in pool.astream("hello"):
            pass
    assert [r.error for r in records] == ["StreamInterrupted"]


async def test_an_observer_that_raises_does_not_affect_calls(
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    records: list[CallRecord],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(record: CallRecord) -> None:
        raise RuntimeError("broken")

    pool = configure(upstream)
    with caplog.at_level(logging.ERROR, "llm_pool"):
        observe(broken)
        observe(records.append)  # called after ``broken``
        try:
            for _ in range(3):
                assert str(await pool.acomplete("hello")) == "You said hello."
        finally:
            unobserve(broken)
            unobserve(records.append)
        await until(lambda: "RuntimeError: broken" in caplog.text)
    assert len(records) == 6
    assert caplog.text.count("it stays registered") == 1


async def test_a_stats_listener_that_raises_does_not_affect_others(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[int] = []

    def broken(name: str, now: PoolStats, before: PoolStats | None) -> None:
        raise RuntimeError("broken")

    def sound(name: str, now: PoolStats, before: PoolStats | None) -> None:
        if name == pool.alias:
            requests.append(now.requests)

    pool = configure(upstream)
    with caplog.at_level(logging.ERROR, "llm_pool"):
        stats_listeners.extend((broken, sound))
        try:
            for number in (1, 2, 3):
                await pool.acomplete("hello")
                await until(lambda: requests and requests[-1] == number)  # noqa: B023
        finally:
            stats_listeners.remove(broken)
            stats_listeners.remove(sound)
        await until(lambda: "RuntimeError: broken" in caplog.text)
    assert caplog.text.count("it stays registered") == 1
