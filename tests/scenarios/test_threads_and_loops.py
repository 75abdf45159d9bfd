"""One pool for every thread and event loop of a process; and how it ends, or is replaced."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from llm_pool import pools
from llm_pool.engine.config import Origin
from llm_pool.engine.loops import portal
from llm_pool.engine.stats.stats import describe
from llm_pool.exceptions import PoolClosed
from testbed import ScriptedServer
from testbed.behaviours import echo, json_reply, per_connection, stall
from testbed.chat import chat_completion, chat_stream
from tests.fixtures.engine import request_to
from tests.fixtures.scripts import run_script
from tests.fixtures.ticks import soon
from tests.scenarios.callers import AT_ONCE, gated, in_thread, occupy, queue_up, trusting, until

# Draining.


async def test_a_drain_lets_calls_finish_and_replaces_connections_as_they_come_back(
    each_loop, serve, engine_pool
):
    """Scenario 51: two in use, one idle; the idle one goes at once, the others when they are done."""
    server = serve(lambda conn: gated(f"go {conn.number}")(conn))
    pool = engine_pool(max_connections=5)
    warm = await occupy(pool, *[server] * 3)
    for number in range(3):
        server.gate(f"go {number}").admit()
    await asyncio.gather(*warm)
    in_use = await occupy(pool, server, server)
    drain = asyncio.create_task(pool.adrain())
    await server.await_until(lambda s: s.connections_open == 2)  # the idle one is gone
    newcomer = await occupy(pool, server)
    assert server.requests[-1].connection == 3
    assert not drain.done()
    for number in range(3):
        server.gate(f"go {number}").open()
    assert [whole.status for whole in await asyncio.gather(*in_use)] == [200, 200]
    assert await drain is True
    await server.await_until(lambda s: s.connections_open == 1)
    server.gate("go 3").open()
    await asyncio.gather(*newcomer)
    await pool.fetch(request_to(server))
    assert server.connections_accepted == 4


async def test_waiters_of_a_drained_pool_are_served_by_new_connections(each_loop, serve, engine_pool):
    """Scenario 51: at the bound, the one in use comes back and is closed; another is dialed for who waits."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    calls = await occupy(pool, server)
    calls += await queue_up(pool, *(pool.fetch(request_to(server)) for _ in range(3)))
    drain = asyncio.create_task(pool.adrain())
    await until(lambda: pool._coordinator.ledger.draining == 1)
    server.gate("go").open()
    await asyncio.gather(*calls)
    assert await drain is True
    assert [request.connection for request in server.requests] == [0, 1, 1, 1]
    assert server.peak_open == 1


async def test_a_drain_that_takes_too_long_says_so(each_loop, serve, engine_pool):
    """Scenario 51: False after its timeout, from a task and from a thread; the call goes on."""
    server = serve(gated())
    pool = engine_pool()
    in_use = await occupy(pool, server)
    assert await pool.adrain(0.05) is False
    assert await in_thread(pool.drain, 0.05) is False
    server.gate("go").open()
    assert [whole.status for whole in await asyncio.gather(*in_use)] == [200]
    assert await pool.adrain(AT_ONCE) is True


async def test_a_drained_pool_is_prewarmed_again(each_loop, serve, engine_pool):
    """Scenario 51: the minimum holds for the new connections too."""
    server = serve(json_reply())
    pool = engine_pool(min_connections=2)
    await pool.prewarm(Origin(*server.origin))
    await until(lambda: pool.stats().idle == 2)
    assert await pool.adrain() is True
    await server.await_until(lambda s: s.connections_accepted == 4 and s.connections_open == 2)
    await until(lambda: pool.stats().idle == 2)


# Closing.


async def test_close_fails_who_waits_who_dials_and_who_reads(server_loop, serve, engine_pool, certificates):
    """Scenario 51: on both homes at once; everyone is told that the pool is closed, and nothing hangs."""
    server: ScriptedServer
    server = serve(stall)
    slow = serve(json_reply(), tls=certificates.good, before_handshake=lambda: slow.gate("tls").passage())
    pool = engine_pool(max_connections=4, tls=trusting(certificates), http2=False)
    calls = await occupy(pool, server)
    calls.append(asyncio.create_task(in_thread(pool.fetch_sync, request_to(server))))
    await server.await_requests(2)
    calls.append(asyncio.create_task(pool.fetch(request_to(slow, connect=30.0))))
    calls.append(asyncio.create_task(in_thread(pool.fetch_sync, request_to(slow, connect=30.0))))
    await slow.gate("tls").await_reached(2)
    calls += await queue_up(
        pool, pool.fetch(request_to(server)), in_thread(pool.fetch_sync, request_to(server))
    )
    began = time.monotonic()
    await pool.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [PoolClosed] * 6
    assert all("closed" in str(result) for result in results)
    assert time.monotonic() - began < 2 * AT_ONCE
    assert pool.stats().connections == pool.stats().waiting == 0
    await server.await_until(lambda s: s.connections_open == 0)
    slow.gate("tls").open()
    await slow.await_until(lambda s: s.connections_open == 0)


async def test_close_from_a_thread_ends_the_connections_of_both_loops(server_loop, serve, engine_pool):
    """Scenario 51: the thread waits until every socket is closed, the server loop's too."""
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    await in_thread(pool.fetch_sync, request_to(server))
    assert pool.stats().idle == 2

    def close() -> int:
        pool.close()
        return pool._coordinator.ledger.total

    # The loop has to go on meanwhile.
    done = asyncio.get_running_loop().run_in_executor(None, close)
    assert await done == 0
    await server.await_until(lambda s: s.connections_open == 0)


async def test_close_on_the_server_loop_does_not_hold_it_up(server_loop, serve, engine_pool):
    """Scenario 51: the sync ``close`` cannot wait there for what only this loop can do."""
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < AT_ONCE  # a wait would take its full two seconds, twice
    await server.await_until(lambda s: s.connections_open == 0)


async def test_a_closed_pool_refuses(each_loop, serve, engine_pool):
    """Scenario 51: at once, to tasks and threads; and closing it again changes nothing."""
    server = serve(json_reply())
    pool = engine_pool("gpt")
    await pool.fetch(request_to(server))
    await pool.aclose()
    await pool.aclose()
    await in_thread(pool.close)
    with pytest.raises(PoolClosed, match="'gpt' is closed"):
        await pool.fetch(request_to(server))
    with pytest.raises(PoolClosed, match="'gpt' is closed"):
        await in_thread(pool.fetch_sync, request_to(server))
    assert server.connections_accepted == 1


async def test_a_dial_ordered_in_the_moment_of_the_close_is_called_off(
    server_loop, serve, engine_pool, certificates
):
    """Scenario 51: the order is on its way to the portal, which is busy, when the pool is closed."""
    busy = serve(gated())
    slow: ScriptedServer
    slow = serve(json_reply(), tls=certificates.good, before_handshake=lambda: slow.gate("tls").passage())
    pool = engine_pool(max_connections=1, tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, busy)
    thread = await queue_up(pool, in_thread(pool.fetch_sync, request_to(slow, connect=30.0)))
    portal.portal().post(busy.gate("portal").block)
    await busy.gate("portal").await_reached()
    busy.gate("go").open()
    await asyncio.gather(*in_use)
    await until(lambda: pool.stats().dialing == 1)
    began = time.monotonic()
    closing = asyncio.create_task(pool.aclose())
    await until(lambda: pool.closed)
    busy.gate("portal").open()
    await closing
    assert time.monotonic() - began < 1.5  # a dial that goes on would be waited for, twice two seconds
    assert pool.stats().connections == 0
    with pytest.raises(PoolClosed):
        await thread[0]
    slow.gate("tls").open()


async def test_a_caller_served_in_the_very_tick_of_the_close_is_told(server_loop, serve, engine_pool):
    """Scenario 51: its connection is new, closing, and not a byte was sent: the pool is closed, it hears."""
    server = serve(json_reply())
    pool = engine_pool()
    call = asyncio.create_task(pool.fetch(request_to(server)))
    await asyncio.sleep(0)  # it has ordered its dial
    (dial,) = pool._coordinator._dials
    dial.add_done_callback(lambda _: pool.close())  # comes after the pool's own, which serves the caller
    with pytest.raises(PoolClosed):
        await call
    assert server.requests == []


async def test_a_peer_that_says_no_goodbye_holds_no_close_up(each_loop, serve, engine_pool, certificates):
    """Scenario 51: the server has stopped reading: the TLS close that it does not answer is cut short."""

    async def deaf(conn) -> None:
        await conn.read_request()
        await conn.respond(200)
        conn.pause_reading()
        await conn.wait_for("never")

    server = serve(deaf, tls=certificates.good)
    pool = engine_pool(tls=trusting(certificates), http2=False)
    await pool.fetch(request_to(server))
    began = time.monotonic()
    await pool.aclose()
    assert time.monotonic() - began < 4.0
    assert pool.stats().connections == 0
    server.gate("never").open()


# Loops and threads.


def test_a_hundred_runs_of_asyncio_share_one_connection(serve, engine_pool):
    """Scenario 53: ``asyncio.run`` and ``async_to_sync`` a hundred times in a row; each makes a loop anew."""
    server = serve(json_reply())
    pool = engine_pool()

    async def call() -> int:
        return (await pool.fetch(request_to(server))).status

    assert [asyncio.run(call()) for _ in range(100)] == [200] * 100
    assert [async_to_sync(call)() for _ in range(20)] == [200] * 20
    assert server.connections_accepted == 1


async def test_callers_of_every_kind_at_once(server_loop, serve, engine_pool):
    """Scenario 53: a server loop, fifty threads, threads that run loops; one pool, one bound, no error."""
    server = serve(echo)
    pool = engine_pool(max_connections=6)

    def thread() -> list[int]:
        return [pool.fetch_sync(request_to(server)).status for _ in range(5)]

    def thread_with_loops() -> list[int]:
        async def call() -> int:
            return (await pool.fetch(request_to(server))).status

        return [asyncio.run(call()) for _ in range(5)]

    async def task() -> list[int]:
        return [(await pool.fetch(request_to(server))).status for _ in range(5)]

    results = await asyncio.gather(
        *(in_thread(thread) for _ in range(50)),
        *(in_thread(thread_with_loops) for _ in range(10)),
        *(task() for _ in range(20)),
    )
    assert results == [[200] * 5] * 80
    assert len(server.requests) == 400
    assert server.peak_open <= 6
    assert pool.stats().requests == 400


def test_a_response_opened_on_one_loop_is_read_on_another(serve, engine_pool):
    """Scenario 53: and left on a third, and in a thread; its connection has never been on any of them."""
    server = serve(echo)
    pool = engine_pool(max_connections=1)
    exchange = asyncio.run(pool.open(request_to(server)))

    async def read() -> bytes:
        return await exchange.host_loop.arun(exchange.read)

    assert b"POST" in asyncio.run(read())
    assert exchange.host_loop.run(exchange.read) == b""
    exchange = pool.open_sync(request_to(server))
    assert b"POST" in asyncio.run(read())
    assert asyncio.run(read()) == b""
    assert server.connections_accepted == 1


async def test_a_call_from_the_server_loop_makes_no_hop(server_loop, serve, engine_pool):
    """Scenario 53: it is served on its own loop, and no portal is started for it."""
    portal.stop()
    server = serve(json_reply())
    pool = engine_pool()
    await pool.fetch(request_to(server))
    exchange = await pool.open(request_to(server))
    assert exchange.host_loop.loop is asyncio.get_running_loop()
    exchange.close_threadsafe()
    await until(lambda: pool.stats().in_use == 0)
    assert portal.THREAD_NAME not in {thread.name for thread in threading.enumerate()}


# Homes that end.


@pytest.mark.parametrize("released", [False, True])
def test_when_the_server_loop_ends_its_connections_are_closed_and_forgotten(serve, engine_pool, released):
    """Scenario 53: idle and in use; the next caller, from a thread, finds all slots free."""
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
    """Scenario 53: the one connection was in use there; nobody calls afterwards to find that out."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)
    statuses = []
    waits = threading.Thread(target=lambda: statuses.append(pool.fetch_sync(request_to(server)).status))

    async def main() -> None:
        portal.adopt_server_loop()
        exchange = await pool.open(request_to(server, None))  # nobody cancels this: there is no task
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
def test_a_server_loop_that_is_closed_without_a_word_is_found_out(serve, engine_pool, next_caller):
    """Scenario 53: no task cancelled, no generator closed; the next caller finds the loop dead."""
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
def test_a_connection_on_a_closed_loop_that_is_no_longer_the_server_loop_holds_no_slot(serve, engine_pool):
    """Scenario 53: it was released before; that it is gone comes out when the slot is needed."""
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
    """Scenario 53: the alarm was set on a server loop; what it was to do is done elsewhere."""
    server = serve(json_reply())
    pool = engine_pool(keepalive_expiry=1.5)  # not before the loop has ended, nor before it is looked for

    async def main() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))

    asyncio.run(main())
    pool.fetch_sync(request_to(server))
    assert pool.stats().idle == 1
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.stats().closed["expired"] == 1


def test_one_server_loop_after_another(serve, engine_pool):
    """Scenario 53: each adopts its own loop, as test clients and reloaders do; threads call in between."""
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
    translate_httpx_errors, over = threading.Event(), threading.Event()

    async def earlier() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))
        translate_httpx_errors.set()
        await asyncio.to_thread(over.wait)
        await pool.fetch(request_to(server))

    async def later() -> None:
        portal.adopt_server_loop()
        await pool.fetch(request_to(server))

    thread = threading.Thread(target=asyncio.run, args=(earlier(),))
    thread.start()
    translate_httpx_errors.wait()
    asyncio.run(later())
    over.set()
    thread.join()
    assert pool.stats().idle == 1
    assert server.connections_accepted == 3


def test_when_the_portal_is_stopped_its_callers_are_told_and_the_next_starts_another(serve, engine_pool):
    """Scenario 53: one in use, one queued; neither hangs, and nothing is left of them."""
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
    assert soon(lambda: pool.stats().waiting == 1)
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
    assert pool.stats().closed == {"shutdown": 1}
    assert [line for line in caplog.messages if "closes a connection" in line and line.endswith(": shutdown")]
    server.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("ended", [False, True])
def test_a_pool_that_has_been_closed_still_tells_its_numbers(serve, engine_pool, ended):
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


def test_a_caller_who_comes_as_the_portals_loop_stops_is_told(serve, engine_pool):
    """Scenario 53: the loop has turned its last, its closing down has not begun: the errand is in between."""
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
        assert soon(lambda: len(loop._ready) > posted)

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


def test_a_caller_who_comes_when_the_portal_is_closing_down_is_told(serve, engine_pool, monkeypatch):
    """Scenario 53: its connections are being cut and its tasks are cancelled: a new one would never end."""
    server = serve(stall)
    pool = engine_pool()
    errors = []

    def call_late(host_loop) -> None:
        async def errand() -> None:
            await pool.fetch(request_to(server))

        def call() -> None:
            with pytest.raises(PoolClosed) as error:
                host_loop.run(errand)
            errors.append(error.value)

        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(AT_ONCE)

    portal.portal()
    monkeypatch.setattr(portal, "_before_loop_ends", [*portal._before_loop_ends, call_late])
    portal.stop()
    assert len(errors) == 1
    assert server.requests == []


def test_no_caller_hangs_however_the_portal_ends(serve, engine_pool):
    """Scenario 53: threads call while portals are stopped under them: each gets an answer, or PoolClosed."""
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
    served = soon(lambda: 200 in outcomes)  # on the last portal at the latest
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
    """Scenario 53: nobody closes the pool; at exit no portal is started anew, and no warning is printed."""
    server = serve(json_reply())
    program = f"""
import asyncio, atexit, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))  # the last to be called
from llm_pool.engine.config import Origin, PoolConfig
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Request
from llm_pool.engine.loops import portal

pool = Pool(PoolConfig(proxy=""))
request = Request(Origin(*{server.origin!r}), b"GET", b"/", [(b"Host", b"test")])

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


# New settings.


def settings_of(server: ScriptedServer, **more) -> dict:
    return {"default": {"BASE_URL": f"{server.url}/v1", "API_KEY": "k", "MODEL": "m", **more}}


def test_overridden_settings_hold_at_once_and_the_old_connections_are_gone(serve):
    """Scenario 54: for a thread; inside the block the new server is asked, after it the old one again."""
    old, new = serve(chat_completion("old")), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        pool = pools["default"]
        assert str(pool.complete("hello")) == "old"
        with override_settings(LLM_POOL=settings_of(new, LIMITS={"max_connections": 3})):
            old.wait_until(lambda s: s.connections_open == 0)
            assert str(pools["default"].complete("hello")) == "new"
            assert pools["default"].stats().max_connections == 3
            with pytest.raises(PoolClosed):
                pool.engine.fetch_sync(request_to(old))
        new.wait_until(lambda s: s.connections_open == 0)
        assert str(pools["default"].complete("hello")) == "old"
    old.wait_until(lambda s: s.connections_open == 0)


async def test_overridden_settings_in_async_code(each_loop, serve):
    """Scenario 54: the same on an event loop, the server loop too, which the change must not hold up."""
    old, new = serve(chat_completion("old")), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        assert str(await pools["default"].acomplete("hello")) == "old"
        began = time.monotonic()
        with override_settings(LLM_POOL=settings_of(new)):
            assert time.monotonic() - began < AT_ONCE
            await old.await_until(lambda s: s.connections_open == 0)
            assert str(await pools["default"].acomplete("hello")) == "new"
            assert len(old.requests) == 1
        await new.await_until(lambda s: s.connections_open == 0)


async def test_calls_in_flight_when_the_settings_change_are_told(each_loop, serve):
    """Scenario 54: a call to the old settings fails with an error that names the cause, and does not hang."""
    old, new = serve(stall), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        call = asyncio.create_task(pools["default"].acomplete("hello"))
        await old.await_requests()
        with override_settings(LLM_POOL=settings_of(new)):
            with pytest.raises(PoolClosed):
                await call
            assert str(await pools["default"].acomplete("hello")) == "new"
            await old.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("call", ["complete", "stream", "client"])
async def test_a_call_that_blocks_the_server_loop_is_warned_of(server_loop, serve, pool_to, call):
    """Scenario 53: it works, and names the line that holds everybody up."""
    pool = pool_to(serve(chat_stream(["a"]) if call == "stream" else chat_completion("a")))
    calls = {
        "complete": lambda: pool.complete("Hello?"),
        "stream": lambda: list(pool.stream("Hello?")),
        "client": lambda: pool.client.post("chat/completions", json={}),
    }
    with pytest.warns(RuntimeWarning, match=r"test_threads_and_loops\.py:\d+ makes a call that blocks"):
        calls[call]()
    await asyncio.to_thread(calls[call])  # there it blocks nobody
    portal.release_server_loop()
    calls[call]()  # nor on a loop that serves nobody else
