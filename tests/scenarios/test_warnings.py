"""Logged warnings: a pool that is almost exhausted, and a response that stays open."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from llm_pool.engine.stats import utilization
from testbed.behaviours import json_reply, reply
from tests.fixtures.engine import request_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.engine.pool import Pool
    from testbed import ScriptedServer
    from testbed.connection import ServerConnection


class Log(logging.Handler):
    """Collects warnings from any thread, and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._came:
            self.lines.append(record.getMessage())
            self._came.notify_all()

    def wait(self, count: int) -> list[str]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.lines) >= count, 5), self.lines
        return self.lines


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("llm_pool.engine")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def respond_at_gate(conn: ServerConnection) -> None:
    """Answer when the gate is open."""
    await conn.read_request()
    await conn.wait_for("go")
    await conn.respond(200, body=b"{}")


async def test_one_warning_is_logged_for_each_crossing_of_the_mark(
    serve: Callable[..., ScriptedServer],
    engine_pool: Callable[..., Pool],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(utilization, "REARM_SECONDS", 0.0)
    server = serve(respond_at_gate)
    pool = engine_pool(max_connections=5, warn_utilization=0.8)
    calls = [asyncio.create_task(pool.fetch(request_to(server))) for _ in range(8)]
    await server.gate("go").await_reached(5)
    assert len(log.wait(1)) == 1
    assert "is 80 % in use (in use 4, " in log.lines[0] or "is 100 % in use (in use 5, " in log.lines[0]
    server.gate("go").open()
    await asyncio.gather(*calls)
    assert len(log.lines) == 1
    server.gate("go").shut()
    calls = [asyncio.create_task(pool.fetch(request_to(server))) for _ in range(5)]
    await server.gate("go").await_reached(10)
    assert len(log.wait(2)) == 2
    server.gate("go").open()
    await asyncio.gather(*calls)


def test_bursts_that_follow_one_another_are_one_crossing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that fills and empties ten times a second must not log each crossing."""
    now = 1000.0
    monkeypatch.setattr(utilization, "monotonic", lambda: now)
    watch = utilization.Utilization(0.8, 10)
    crossings = []
    for in_use, seconds in [(8, 0.0), (0, 0.1), (10, 5.0), (7, 9.9), (9, 9.9), (8, 0.1), (7, 10.0), (8, 0.0)]:
        disagree = (in_use >= watch.threshold) != watch.is_above  # as the coordinator compares them
        crossings.append(disagree and watch.cross(in_use))
        now += seconds
    assert crossings == [True, False, False, False, False, False, False, True]


async def test_below_the_mark_nothing_is_logged(
    serve: Callable[..., ScriptedServer], engine_pool: Callable[..., Pool], log: Log
) -> None:
    server = serve(json_reply())
    pool = engine_pool(max_connections=5, warn_utilization=0.8)
    for _ in range(3):
        await asyncio.gather(*(pool.fetch(request_to(server)) for _ in range(3)))
    assert log.lines == []


async def test_a_response_that_is_held_is_logged_once_with_the_line_that_opened_it(
    serve: Callable[..., ScriptedServer], engine_pool: Callable[..., Pool], log: Log
) -> None:
    server = serve(reply(200, b"x" * 1_000_000))
    pool = engine_pool(leak_threshold=0.01)
    held = await pool.open(request_to(server))
    line = log.wait(1)[0]
    assert "has been held for over 0.01 s" in line
    assert "held = await pool.open(request_to(server))" in line
    assert __file__ in line
    assert pool.stats().leaks_suspected == 1
    held.close_threadsafe()


async def test_a_response_that_was_read_or_left_in_time_is_no_leak(
    serve: Callable[..., ScriptedServer], engine_pool: Callable[..., Pool], log: Log
) -> None:
    server = serve(reply(200, b"x" * 1_000_000))
    pool = engine_pool(leak_threshold=2.0)
    left, read, held = [await pool.open(request_to(server)) for _ in range(3)]
    left.close_threadsafe()
    await read.host_loop.arun(read.read_all)
    log.wait(1)  # for the third; the others have passed their threshold too
    assert pool.stats().leaks_suspected == len(log.lines) == 1
    held.close_threadsafe()


def test_a_thread_that_holds_a_response_is_found_too(
    serve: Callable[..., ScriptedServer], engine_pool: Callable[..., Pool], log: Log
) -> None:
    server = serve(reply(200, b"x" * 1_000_000))
    pool = engine_pool(leak_threshold=0.01)
    held = pool.open_sync(request_to(server))
    assert "held = pool.open_sync(request_to(server))" in log.wait(1)[0]
    held.close_threadsafe()
