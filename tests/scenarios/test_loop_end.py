"""The server loop or the portal ends: its connections are closed, and later calls use another loop."""

from __future__ import annotations

import asyncio
import logging
import random
import threading

import pytest

from llm_pool.engine.config import PoolConfig
from llm_pool.engine.dialer.dialer import Dialer
from llm_pool.engine.loops import portal
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.loops.log_thread import flush
from llm_pool.engine.loops.portal import host_loop_of_caller
from llm_pool.engine.pool import Pool
from llm_pool.engine.stats.stats import describe
from llm_pool.exceptions import PoolClosed
from testbed.behaviours import json_reply, per_connection, stall
from tests.fixtures.callers import AT_ONCE, gated, occupy, trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import add_before_loop_ends, calls_of, coordinator_of
from tests.fixtures.scripts import run_script
from tests.fixtures.waiting import becomes_true


@pytest.mark.parametrize("released", [False, True])
def test_when_the_server_loop_ends_its_connections_are_closed_and_forgotten(serve, engine_pool, released):
    """Scenario 53: idle ones and those in use; the next call, from a thread, finds all slots free."""
    server = serve(per_connection(gated(), stall, json_reply()))
    pool = engine_pool(max_connections=2)

    async def main() -> None:
        portal.adopt_server_loop()
        idle, in_use = await occupy(pool, server, server)
        server.gate("go").open()
        await idle
        if released:
            portal.release_server_loop()
        assert (pool.stats().idle, pool.stats().in_use) == (1, 1)
        del in_use

    asyncio.run(main())
    assert (pool.stats().connections, pool.stats().waiting) == (0, 0)
    assert pool.stats().closed == {"unclean": 1, "shutdown": 1}  # the server has closed neither
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert asyncio.run(pool.fetch(request_to(server, pool=AT_ONCE))).status == 200


def test_a_thread_that_waits_is_served_when_the_server_loop_ends(serve, engine_pool):
    """Scenario 53: the only connection was in use on it, and no later call triggers this."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)
    statuses = []
    waits = threading.Thread(target=lambda: statuses.append(pool.fetch_sync(request_to(server)).status))

    async def main() -> None:
        portal.adopt_server_loop()
        exchange = await pool.open(request_to(server, None))  # no task awaits it: nothing is cancelled
        await server.await_until(lambda s: s.connections_open == 1)
        waits.start()
        await until(lambda: pool.stats().waiting == 1)
        del exchange

    asyncio.run(main())
    waits.join()
    assert statuses == [200]
    assert server.peak_open == 1


@pytest.mark.parametrize("next_caller", ["thread", "server loop"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_loop_closed_without_cleanup_is_detected(serve, engine_pool, next_caller):
    """Scenario 53: no task is cancelled, no generator closed; the next call notices the closed loop."""
    server = serve(per_connection(stall, stall, json_reply()))
    pool = engine_pool(max_connections=2)
    loop = asyncio.new_event_loop()
    tasks = []

    async def main() -> None:
        portal.adopt_server_loop()
        tasks.extend(asyncio.create_task(pool.fetch(request_to(server))) for _ in range(3))
        await server.await_requests(2)
        await until(lambda: pool.stats().waiting == 1)

    loop.run_until_complete(main())
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()

    async def call_on_another() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server, pool=AT_ONCE))

    if next_caller == "thread":
        pool.fetch_sync(request_to(server, pool=AT_ONCE))
    else:
        asyncio.run(call_on_another())
    assert len(server.requests) == 3
    assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_of_a_former_server_loop_that_closed_holds_no_slot(serve, engine_pool):
    """Scenario 53: the loop was released before; the pool notices its end when it needs the slot."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))
        portal.release_server_loop()

    loop.run_until_complete(main())
    loop.close()
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert pool.stats().connections == 1


def test_expiry_goes_on_when_the_loop_that_kept_the_time_has_ended(serve, engine_pool):
    """Scenario 53: the timer was set on a server loop; the next call sets it on another loop."""
    server = serve(json_reply())
    pool = engine_pool(keepalive_expiry=1.5)  # longer than the loop lasts and the next assertion takes

    async def main() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))

    asyncio.run(main())
    pool.fetch_sync(request_to(server))
    assert pool.stats().idle == 1
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.stats().closed["expired"] == 1


def test_one_server_loop_after_another(serve, engine_pool):
    """Scenario 53: each is adopted, as with test clients and reloaders; threads call in between."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=2)

    async def main() -> None:
        host_loop = portal.adopt_server_loop()
        assert portal.adopt_server_loop() is host_loop
        assert (await pool.fetch(request_to(server))).status == 200

    for _ in range(10):
        asyncio.run(main())
        assert pool.fetch_sync(request_to(server)).status == 200
    assert server.connections_accepted == 11  # one on each loop, and one for the threads
    assert server.peak_open <= 2


def test_two_server_loops_at_once(serve, engine_pool):
    """Scenario 53: the later one is the server loop; callers on the earlier go through the portal."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=3)
    adopted, over = threading.Event(), threading.Event()

    async def earlier() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))
        adopted.set()
        await asyncio.to_thread(over.wait)
        await pool.fetch(request_to(server))

    async def later() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))

    thread = threading.Thread(target=asyncio.run, args=(earlier(),))
    thread.start()
    adopted.wait()
    asyncio.run(later())
    over.set()
    thread.join()
    assert pool.stats().idle == 1
    assert server.connections_accepted == 3


def test_calls_fail_when_the_portal_stops_and_the_next_call_starts_another(serve, engine_pool):
    """Scenario 53: one call has a connection, one is queued; neither hangs, and nothing is left of them."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)
    errors = []

    def call() -> None:
        with pytest.raises(PoolClosed) as error:
            pool.fetch_sync(request_to(server))
        errors.append(error.value)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    server.wait_requests()
    assert becomes_true(lambda: pool.stats().waiting == 1)
    portal.stop()
    for thread in threads:
        thread.join()
    assert len(errors) == 2
    assert (pool.stats().connections, pool.stats().waiting) == (0, 0)
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.fetch_sync(request_to(server)).status == 200


@pytest.mark.parametrize("secure", [False, True])
def test_what_idles_when_the_portal_is_stopped_is_not_taken_for_lost(
    serve, engine_pool, certificates, caplog, secure
):
    server = serve(json_reply(), tls=certificates.good if secure else None)
    pool = engine_pool(tls=trusting(certificates), http2=False)
    pool.fetch_sync(request_to(server))
    with caplog.at_level(logging.DEBUG, "llm_pool.engine"):
        portal.stop()
        flush()
    assert pool.stats().closed == {"shutdown": 1}
    assert [line for line in caplog.messages if "closes a connection" in line and line.endswith(": shutdown")]
    server.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("ended", [False, True])
def test_a_closed_pool_still_has_stats(serve, engine_pool, ended):
    server, pool = serve(json_reply()), engine_pool()
    pool.fetch_sync(request_to(server))
    pool.close()
    if ended:
        portal.stop()
    pool.count_answer(1, 1, 0.1)
    stats = pool.stats()
    assert (stats.requests, stats.opened, stats.closed, stats.input_tokens) == (1, 1, {"closed": 1}, 1)
    assert (stats.connections, stats.closing, stats.utilization, stats.longest_wait) == (0, 0, 0.0, 0.0)
    assert "in use 0, idle 0, dialing 0, waiting 0, max 100" in describe(stats)
    assert pool.connections() == []
    assert pool.drain(AT_ONCE)


def test_a_call_made_as_the_portals_loop_stops_gets_pool_closed(serve, engine_pool):
    """Scenario 53: between the loop's last step and its close."""
    server = serve(json_reply())
    pool = engine_pool()
    host_loop = portal.portal()
    board, loop = server.gate("stopping"), host_loop.loop
    errors = []

    def call() -> None:
        board.block()
        with pytest.raises(PoolClosed) as error:
            pool.fetch_sync(request_to(server))
        errors.append(error.value)

    def let_the_caller_in() -> None:
        posted = len(loop._ready)
        board.open()
        assert becomes_true(lambda: len(loop._ready) > posted)

    def stop() -> None:
        loop.stop()
        loop.call_soon(let_the_caller_in)

    caller = threading.Thread(target=call)
    caller.start()
    board.wait_reached()
    host_loop.post(stop)
    caller.join(AT_ONCE)
    assert len(errors) == 1
    assert pool.fetch_sync(request_to(server)).status == 200  # on another portal


def test_a_call_made_while_the_portal_closes_down_gets_pool_closed(serve, engine_pool, monkeypatch):
    """Scenario 53: its connections are aborted and its tasks cancelled: a new call would never end."""
    server = serve(stall)
    pool = engine_pool()
    errors = []

    def call_late(host_loop) -> None:
        async def work() -> None:
            await pool.fetch(request_to(server))

        def call() -> None:
            with pytest.raises(PoolClosed) as error:
                host_loop.run(work)
            errors.append(error.value)

        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(AT_ONCE)

    portal.portal()
    add_before_loop_ends(monkeypatch, call_late)
    portal.stop()
    assert len(errors) == 1
    assert server.requests == []


def test_a_call_that_is_posted_after_the_last_step_of_its_loop_fails():
    """Scenario 53: the loop runs nothing any more; the call does not hang."""
    loop = asyncio.new_event_loop()
    host_loop, errors = HostLoop(loop), []

    def call() -> None:
        with pytest.raises(PoolClosed) as error:
            host_loop.run(asyncio.sleep, 0)
        errors.append(error.value)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert becomes_true(lambda: calls_of(host_loop))
    host_loop.end()
    thread.join(AT_ONCE)
    assert len(errors) == 1
    assert not calls_of(host_loop)
    loop.close()


async def test_a_dial_that_ends_as_its_loop_ends_leaves_no_connection(serve, server_loop):
    """Scenario 53: the connections of the loop are aborted before the ledger has the new one."""
    server = serve(json_reply())
    host_loop = host_loop_of_caller()

    def end() -> None:
        host_loop.refuse_calls()
        coordinator_of(pool).abort_on(host_loop)

    class Ending(Dialer):
        async def dial(self, *args, **kwargs):
            connection = await super().dial(*args, **kwargs)
            asyncio.get_running_loop().call_soon(end)  # runs before the callback of this task
            return connection

    pool = Pool(PoolConfig(proxy=""), dialer=Ending)
    call = asyncio.create_task(pool.fetch(request_to(server)))
    await until(lambda: server.disconnects)
    coordinator_of(pool).forget_loop(host_loop)
    with pytest.raises(PoolClosed):
        await call
    assert server.connections_accepted == 1
    assert pool.stats().connections == 0
    await pool.aclose()


def test_no_caller_hangs_however_the_portal_ends(serve, engine_pool):
    """Scenario 53: threads call while portals are stopped: each call gets a response or PoolClosed."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=4)
    dice = random.Random(53)
    stop = threading.Event()
    outcomes = []

    def call_again_and_again() -> None:
        while not stop.is_set():
            try:
                outcomes.append(pool.fetch_sync(request_to(server)).status)
            except PoolClosed:
                outcomes.append(PoolClosed)

    threads = [threading.Thread(target=call_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        stop.wait(dice.random() * 0.01)
        portal.stop()
    served = becomes_true(lambda: 200 in outcomes)  # on the last portal at the latest
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert served
    assert pool.fetch_sync(request_to(server)).status == 200
    assert server.peak_open <= 4


@pytest.mark.forks
@pytest.mark.parametrize("kind", ["threads", "server loop"])
def test_a_process_ends_in_silence_with_a_pool_in_use(serve, kind):
    """Scenario 53: the pool is not closed; at exit no portal is started, and no warning is printed."""
    server = serve(json_reply())
    program = f"""
import asyncio, atexit, threading
def print_threads():  # the thread of log handlers runs if asyncio has warned of a slow step
    print([thread.name for thread in threading.enumerate() if thread.name != "llm_pool-log"])
atexit.register(print_threads)  # the last to be called
from llm_pool.engine.config import Origin, PoolConfig
from llm_pool.engine.pool import Pool
from llm_pool.engine.head import RequestHead
from llm_pool.engine.request import Request
from llm_pool.engine.loops import portal

pool = Pool(PoolConfig(proxy=""))
request = Request(RequestHead(Origin(*{server.origin!r}), b"GET", b"/", [(b"Host", b"test")]))

async def main():
    portal.adopt_server_loop()
    await pool.fetch(request)

print(pool.fetch_sync(request).status)
if {kind!r} == "server loop":
    asyncio.run(main())
    pool.fetch_sync(request)
exchange = pool.open_sync(request)
"""
    assert run_script(program) == "200\n['MainThread']\n"
