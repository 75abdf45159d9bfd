"""The ASGI lifespan: a server's startup and shutdown reach the pools."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from llm_pool import pools
from llm_pool.asgi import get_asgi_application
from llm_pool.engine.loops import portal
from tests.fixtures.internals import forget_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer


@pytest.fixture(autouse=True)
def no_earlier_lifespan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server sends one lifespan for each process, and these tests several."""
    forget_server(monkeypatch)


class Lifespan:
    """A server's side of the lifespan (https://asgi.readthedocs.io/en/latest/specs/lifespan.html)."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}  # no state: not all servers send one
        application = get_asgi_application()
        self.task = asyncio.create_task(application(scope, self._events.get, self.sent.put))  # type: ignore[arg-type]

    async def send(self, event: str) -> Any:
        await self._events.put({"type": f"lifespan.{event}"})
        async with asyncio.timeout(5):
            return await self.sent.get()


@asynccontextmanager
async def running() -> AsyncIterator[Lifespan]:
    lifespan = Lifespan()
    assert await lifespan.send("startup") == {"type": "lifespan.startup.complete"}
    try:
        yield lifespan
    finally:
        if not lifespan.task.done():
            assert await lifespan.send("shutdown") == {"type": "lifespan.shutdown.complete"}
        await lifespan.task


async def test_the_lifespan_adopts_the_servers_loop_and_closes_its_connections(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 51."""
    configure(upstream, LIMITS={"min_connections": 1})
    async with running():
        await upstream.await_until(lambda s: s.connections_accepted == 1)
        assert portal.host_loop_of_caller().is_current
        await pools["default"].acomplete("hello")
        await asyncio.to_thread(pools["default"].complete, "hello")
        assert upstream.connections_open == 2
    await upstream.await_until(lambda s: s.connections_open == 0)
    assert not portal.host_loop_of_caller().is_current


async def test_a_shutdown_lets_calls_finish(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 51."""
    upstream.gate("token").shut()
    pool = configure(upstream)
    async with running() as lifespan:
        stream = pool.astream("hello")
        first = asyncio.create_task(stream.astep())
        await upstream.gate("token").await_reached()
        await pool.acomplete("hello")
        ended = asyncio.create_task(lifespan.send("shutdown"))
        await upstream.await_until(lambda s: s.connections_open == 1)  # the idle connection is closed
        upstream.gate("token").open()
        text = "".join(chunk.text for chunk in await first)
        assert text + "".join([chunk.text async for chunk in stream]) == "onetwothree"
        assert (await ended)["type"] == "lifespan.shutdown.complete"


async def test_a_startup_with_invalid_settings_fails_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with override_settings(LLM_POOL={"default": {"LIMITS": {"max_connections": 0}}}):
        lifespan = Lifespan()
        answer = await lifespan.send("startup")
        await lifespan.task
    assert not portal.host_loop_of_caller().is_current
    assert answer["type"] == "lifespan.startup.failed"
    assert "max_connections" in answer["message"]
    assert "llm_pool could not start" in caplog.text
