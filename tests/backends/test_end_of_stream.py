"""A stream ends for its caller at the provider's last event, and for its connection at the body's end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from testbed.behaviours import EVENTS
from testbed.chat import chat_event
from tests.backends.conftest import HTTP1
from tests.fixtures.callers import in_thread, until

if TYPE_CHECKING:
    import httpx

    from llm_pool.calling.pool import LLMPool

LAST_EVENTS = chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n"


async def ends_late(exchange: Any) -> None:
    """Send the last events after the gate "last events", and end the body after the gate "end"."""
    await exchange.head(headers=EVENTS)
    await exchange.data(chat_event({"content": "a"}))
    await exchange.wait_for("last events")
    await exchange.data(LAST_EVENTS)
    await exchange.wait_for("end")
    await exchange.end()


@pytest.fixture
def server(serve, play):
    server = serve(play(ends_late))
    server.gate("last events").open()
    return server


async def event_hook(response: httpx.Response) -> None:
    """Do nothing."""


async def read(pool: LLMPool) -> str:
    return "".join([chunk.text async for chunk in pool.astream("Hello?")])


def read_sync(pool: LLMPool) -> str:
    return "".join([chunk.text for chunk in pool.stream("Hello?")])


@pytest.mark.parametrize("hooked", [False, True])
async def test_a_stream_that_ends_before_its_body_is_not_a_cancelled_call(server, configure, hooked):
    """Both directly and through httpx's clients, which are used if event hooks are installed."""
    pool = configure(server)
    if hooked:
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [event_hook]}
    assert await read(pool) == "a"
    assert await in_thread(read_sync, pool) == "a"
    # A connection may be released a moment before its call is counted.
    await until(lambda: pool.stats().in_use == 0 and pool.stats().total.count + pool.stats().cancelled == 2)
    stats = pool.stats()
    assert (stats.cancelled, stats.total.count, stats.first_token.count) == (0, 2, 2)
    assert stats.total.total >= stats.first_token.total > 0


async def test_a_stream_closed_before_the_last_event_is_a_cancelled_call(server, configure):
    server.gate("last events").shut()
    pool = configure(server)
    async with pool.astream("Hello?") as stream:
        await anext(stream)
    await until(lambda: pool.stats().in_use == 0 and pool.stats().total.count + pool.stats().cancelled == 1)
    assert (pool.stats().cancelled, pool.stats().total.count) == (1, 0)


@pytest.mark.kinds(HTTP1)
async def test_a_call_waits_for_a_connection_that_is_being_drained(server, configure, monkeypatch, each_loop):
    """Scenario 35: it does not dial while the rest of the previous body is read."""
    for module in ("llm_pool.engine.http11.connection", "llm_pool.backends.transfer"):
        monkeypatch.setattr(f"{module}.DRAIN_SECONDS", 30.0)
    pool = configure(server)

    async def read_two():
        return [await read(pool), await read(pool)]

    both = asyncio.create_task(read_two())
    await until(lambda: pool.stats().requests == 2)
    assert (pool.stats().waiting, pool.stats().in_use, pool.stats().dialing) == (1, 1, 0)
    server.gate("end").open()
    assert await both == ["a", "a"]
    await until(lambda: pool.stats().idle == 1)
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP1)
async def test_a_call_dials_if_a_connection_is_not_drained_in_time(server, configure):
    """Scenario 35: after 100 ms; every call is served."""
    pool = configure(server)
    for _ in range(3):
        assert await read(pool) == "a"
    assert server.connections_accepted == 3
