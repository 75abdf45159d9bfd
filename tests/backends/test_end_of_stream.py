"""A stream is over for its caller with the last word, and for its connection with the body's end."""

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

LAST_WORD = chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n"


async def ends_late(exchange: Any) -> None:
    """The last word comes at the gate "word", the end of the body at the gate "end"."""
    await exchange.head(headers=EVENTS)
    await exchange.data(chat_event({"content": "a"}))
    await exchange.wait_for("word")
    await exchange.data(LAST_WORD)
    await exchange.wait_for("end")
    await exchange.end()


@pytest.fixture
def server(serve, play):
    server = serve(play(ends_late))
    server.gate("word").open()
    return server


async def look_on(response: httpx.Response) -> None:
    """An event hook."""


async def read_out(pool: LLMPool) -> str:
    return "".join([chunk.text async for chunk in pool.astream("Hello?")])


def read_out_sync(pool: LLMPool) -> str:
    return "".join([chunk.text for chunk in pool.stream("Hello?")])


@pytest.mark.parametrize("looked_on", [False, True])
async def test_who_leaves_with_the_last_word_gives_nothing_up(server, configure, looked_on):
    """However late the end of the body is, the call was a whole one; through httpx's clients, too."""
    pool = configure(server)
    if looked_on:
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [look_on]}
    assert await read_out(pool) == "a"
    assert await in_thread(read_out_sync, pool) == "a"
    # A connection may be free a moment before its call has been counted.
    await until(lambda: pool.stats().in_use == 0 and pool.stats().total.count + pool.stats().cancelled == 2)
    stats = pool.stats()
    assert (stats.cancelled, stats.total.count, stats.first_token.count) == (0, 2, 2)
    assert stats.total.total >= stats.first_token.total > 0


async def test_who_leaves_before_the_last_word_gives_up(server, configure):
    server.gate("word").shut()
    pool = configure(server)
    async with pool.astream("Hello?") as stream:
        await anext(stream)
    await until(lambda: pool.stats().in_use == 0 and pool.stats().total.count + pool.stats().cancelled == 1)
    assert (pool.stats().cancelled, pool.stats().total.count) == (1, 0)


@pytest.mark.kinds(HTTP1)
async def test_nobody_dials_for_want_of_a_connection_that_is_due(server, configure, monkeypatch, each_loop):
    """Scenario 35: what follows the last word is read out, and who comes meanwhile waits for that."""
    for module in ("llm_pool.engine.http11.connection", "llm_pool.backends.transfer"):
        monkeypatch.setattr(f"{module}.DRAIN_SECONDS", 30.0)
    pool = configure(server)

    async def read_two():
        return [await read_out(pool), await read_out(pool)]  # with nothing in between

    both = asyncio.create_task(read_two())
    await until(lambda: pool.stats().requests == 2)
    assert (pool.stats().waiting, pool.stats().in_use, pool.stats().dialing) == (1, 1, 0)
    server.gate("end").open()
    assert await both == ["a", "a"]
    await until(lambda: pool.stats().idle == 1)
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP1)
async def test_in_place_of_a_connection_that_was_due_and_does_not_come_another_is_dialed(server, configure):
    """Scenario 35: 100 ms later, and nobody is lost."""
    pool = configure(server)
    for _ in range(3):
        assert await read_out(pool) == "a"
    assert server.connections_accepted == 3
