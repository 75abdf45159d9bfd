"""Interrupted sync calls and killed threads free their slot and their socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading

import pytest

from llm_pool.engine.loops import portal
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Request
from testbed import ScriptedServer
from testbed.behaviours import echo, json_reply, per_connection, stall
from tests.fixtures.callers import AT_ONCE, gated, in_thread, raise_in
from tests.fixtures.engine import request_to
from tests.fixtures.internals import calls_of
from tests.fixtures.waiting import becomes_true
from tests.scenarios.steppers import interrupted_at


def open_read_and_close(pool: Pool, request: Request) -> None:
    exchange = pool.open_sync(request)
    try:
        while exchange.host_loop.run(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


def fetch_sync(pool: Pool, request: Request) -> None:
    pool.fetch_sync(request)


async def unending_or_empty(conn) -> None:
    """Respond when the gate "go" lets the request through: to /unending, with a body that never comes."""
    request = await conn.read_request()
    await conn.wait_for("go")
    if request.target == "/unending":
        await conn.send_head(200, {"Content-Length": "8"})
        await conn.hold()
    await conn.respond(200)


@pytest.fixture
def interrupts():
    """Set Python's handler of SIGINT: a shell makes processes in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("blocked_in", ["queue", "head", "body"])
def test_a_keyboard_interrupt_frees_the_connection(serve, engine_pool, blocked_in):
    """Scenario 26: SIGINT in the main thread while it blocks in the pool, as with Ctrl-C."""

    async def half(conn) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": "10"})
        await conn.hold()

    scripts = {"queue": gated(), "head": stall, "body": half}
    server = serve(per_connection(scripts[blocked_in], json_reply()))
    pool = engine_pool(max_connections=1)
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt() -> None:
        server.wait_requests()
        if blocked_in == "queue":
            assert becomes_true(lambda: pool.stats().waiting == 1)
        signal.pthread_kill(main.ident, signal.SIGINT)

    holder = None
    if blocked_in == "queue":
        holder = threading.Thread(target=fetch_sync, args=(pool, request_to(server)))
        holder.start()
        server.wait_requests()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            open_read_and_close(pool, request_to(server))
        thread.join()
        assert becomes_true(lambda: pool.stats().waiting == 0)
    finally:
        server.gate("go").open()
    if holder is not None:
        holder.join()
    else:
        server.wait_until(lambda s: s.disconnects)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200


@pytest.mark.parametrize("way", [fetch_sync, open_read_and_close])
def test_interrupted_at_every_step_of_a_sync_call(serve, engine_pool, way):
    """Scenario 26: at each place where CPython checks for signals; the pool has only one connection."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    pool.fetch_sync(request_to(server))
    go_through_interrupts(lambda step: interrupted_at(step, way, pool, request_to(server)), pool, server)


def test_interrupted_at_every_step_of_opening_a_response_that_never_ends(serve, engine_pool):
    """Scenario 26: up to the moment when the caller has the response and can close it."""
    server = serve(unending_or_empty)
    server.gate("go").open()
    pool = engine_pool(max_connections=1)

    def run(step: int) -> tuple[bool, None]:
        got_there, exchange = interrupted_at(step, pool.open_sync, request_to(server, target="/unending"))
        exchange.close_threadsafe()
        return got_there, None

    go_through_interrupts(run, pool, server)


def go_through_interrupts(run, pool: Pool, server: ScriptedServer) -> None:
    """Call ``run(step)`` for each step of the call. After each, the pool must work and have no calls.

    Nor may the portal have any: it would keep all objects of the call in memory.
    """
    step, got_there = 0, True
    while got_there:
        with contextlib.suppress(KeyboardInterrupt):
            got_there, _ = run(step)
        assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200, step
        assert (pool.stats().in_use, pool.stats().waiting) == (0, 0), step
        assert not calls_of(portal.portal()), step
        step += 1
    assert step > 10


@pytest.mark.parametrize("blocked_in", ["queue", "head"])
def test_a_thread_that_is_killed_frees_its_connection(serve, engine_pool, blocked_in):
    """Scenario 26: an exception raised in the thread from outside, as by timeouts of task queues.

    A blocked thread notices it only when the response arrives. The response never ends: it must be closed.
    """

    def open_unending() -> None:
        try:
            pool.open_sync(request_to(server, target="/unending"))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ended_with.append(error)

    ended_with: list[BaseException] = []
    server = serve(unending_or_empty)
    pool = engine_pool(max_connections=1)
    holder = threading.Thread(target=pool.fetch_sync, args=(request_to(server),))
    if blocked_in == "queue":
        holder.start()
        server.wait_requests()
    victim = threading.Thread(target=open_unending)
    victim.start()
    if blocked_in == "queue":
        assert becomes_true(lambda: pool.stats().waiting == 1)
    else:
        server.wait_requests()
    raise_in(victim, SystemExit)
    server.gate("go").open()
    victim.join()
    if blocked_in == "queue":
        holder.join()
    assert [type(error) for error in ended_with] == [SystemExit]
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert pool.stats().in_use == 0


async def test_cancelled_tasks_do_not_disturb_threads(serve, engine_pool):
    """Scenario 26: cancelled tasks and threads share the portal; every thread gets its responses."""
    server = serve(echo)
    pool = engine_pool(max_connections=3)
    stop = asyncio.Event()

    async def cancel_again_and_again() -> None:
        while not stop.is_set():
            task = asyncio.create_task(pool.fetch(request_to(server)))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])

    def call_often() -> list[int]:
        return [pool.fetch_sync(request_to(server)).status for _ in range(20)]

    cancelling = [asyncio.create_task(cancel_again_and_again()) for _ in range(3)]
    statuses = await asyncio.gather(*(in_thread(call_often) for _ in range(4)))
    stop.set()
    await asyncio.gather(*cancelling)
    assert statuses == [[200] * 20] * 4
    assert server.peak_open <= 3
