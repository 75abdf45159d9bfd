"""Admission: which calls get a connection, in which order, and what the errors of the other calls say."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_pool.engine.request import WholeResponse
from llm_pool.exceptions import ConnectFailed, PoolFull, PoolTimeout, TotalTimeout
from testbed import ScriptedServer
from testbed.behaviours import json_reply
from tests.fixtures.callers import AT_ONCE, bodies, gated, in_thread, occupy, queue_up, trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import entries_of, ledger_of, lock_of

# The bound.


async def test_connections_of_both_loops_together_never_exceed_max_connections(
    server_loop, serve, engine_pool
):
    """Scenario 1: the bound holds over the server loop and the portal together."""
    server = serve(gated())
    pool = engine_pool(max_connections=3)
    async with asyncio.TaskGroup() as calls:
        for _ in range(8):
            calls.create_task(pool.fetch(request_to(server)))
            calls.create_task(in_thread(pool.fetch_sync, request_to(server)))
        await server.await_requests(3)
        await until(lambda: pool.stats().waiting == 13)
        assert server.connections_open == 3
        server.gate("go").open()
    assert len(server.requests) == 16
    assert server.peak_open == 3


async def test_connections_that_are_being_dialed_count(server_loop, serve, engine_pool, certificates):
    """Scenario 1: at most ``max_connections`` handshakes are in progress."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(max_connections=3, tls=trusting(certificates), http2=False)
    async with asyncio.TaskGroup() as calls:
        for _ in range(5):
            calls.create_task(pool.fetch(request_to(server)))
            calls.create_task(in_thread(pool.fetch_sync, request_to(server)))
        await server.gate("tls").await_reached(3)
        await until(lambda: pool.stats().waiting == 10)
        assert pool.stats().dialing == 3
        assert server.connections_accepted == 3
        server.gate("tls").open()
    assert server.peak_open == 3


# The queue.


async def test_one_more_than_max_waiting_fails_at_once(each_loop, serve, engine_pool):
    """Scenario 2: the queue has room for two calls; a third is refused, and the two keep waiting."""
    server = serve(gated())
    pool = engine_pool(max_connections=1, max_waiting=2, pool=30.0)
    in_use = await occupy(pool, server)
    waiting = await queue_up(pool, *(pool.fetch(request_to(server)) for _ in range(2)))
    began = time.monotonic()
    with pytest.raises(PoolFull):
        await pool.fetch(request_to(server))
    assert time.monotonic() - began < AT_ONCE
    assert pool.stats().waiting == 2
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)
    assert len(server.requests) == 3


async def test_a_refused_caller_leaves_room_for_the_next(each_loop, serve, engine_pool):
    """Scenario 2: when the queue is shorter again, the next call can wait in it."""
    server = serve(gated())
    pool = engine_pool(max_connections=1, max_waiting=1)
    in_use = await occupy(pool, server)
    waiting = await queue_up(pool, pool.fetch(request_to(server)))
    for _ in range(3):
        with pytest.raises(PoolFull):
            await pool.fetch(request_to(server))
    server.gate("go").admit(1)
    await asyncio.gather(*in_use)
    await server.await_requests(2)
    waiting += await queue_up(pool, pool.fetch(request_to(server)))
    server.gate("go").open()
    await asyncio.gather(*waiting)


def test_a_thread_is_refused_in_the_same_way(serve, engine_pool):
    """Scenario 2: PoolFull for callers without an event loop."""
    server = serve(gated())
    pool = engine_pool(max_connections=1, max_waiting=0)

    async def main():
        in_use = await occupy(pool, server)
        with pytest.raises(PoolFull):
            await in_thread(pool.fetch_sync, request_to(server))
        server.gate("go").open()
        await asyncio.gather(*in_use)

    asyncio.run(main())


async def test_waiters_are_served_in_the_order_they_came(each_loop, serve, engine_pool):
    """Scenario 3: first come, first served, for any length of the queue."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    order = [b"%d" % number for number in range(10)]
    waiting = await queue_up(pool, *(pool.fetch(request_to(server, body)) for body in order))
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)
    assert bodies(server)[1:] == order


async def test_threads_and_tasks_share_one_queue(serve, engine_pool):
    """Scenario 3: on the portal, threads and tasks wait in the same queue."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    order = [b"%d" % number for number in range(6)]
    waiting = await queue_up(
        pool,
        *(
            pool.fetch(request_to(server, body))
            if number % 2
            else in_thread(pool.fetch_sync, request_to(server, body))
            for number, body in enumerate(order)
        ),
    )
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)
    assert bodies(server)[1:] == order


async def test_a_newcomer_cannot_overtake(each_loop, serve, engine_pool):
    """Scenario 3: a call that arrives when a connection is released queues behind earlier calls."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    newcomers = []

    async def call_and_call_again() -> None:
        await pool.fetch(request_to(server, b"first"))
        newcomers.append(asyncio.create_task(pool.fetch(request_to(server, b"newcomer"))))

    in_use = asyncio.create_task(call_and_call_again())
    await server.await_requests(1)
    waiting = await queue_up(pool, *(pool.fetch(request_to(server, b"waiter")) for _ in range(3)))
    server.gate("go").open()
    await asyncio.gather(in_use, *waiting)
    await asyncio.gather(*newcomers)
    assert bodies(server) == [b"first", b"waiter", b"waiter", b"waiter", b"newcomer"]


# The pool timeout.


async def test_the_pool_timeout_covers_the_queue(each_loop, serve, engine_pool):
    """Scenario 4: the wait in the queue."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    with pytest.raises(PoolTimeout, match=r"within the pool timeout of 0\.05 s"):
        await pool.fetch(request_to(server, pool=0.05))
    server.gate("go").open()
    await asyncio.gather(*in_use)


async def test_the_pool_timeout_covers_the_lookup_of_the_name(each_loop, serve, engine_pool, fake_dns):
    """Scenario 4: the wait for DNS, even if the connect timeout is longer."""
    server = serve(json_reply())
    fake_dns.names["llm.test"] = server.host
    fake_dns.gate = server.gate("dns")
    pool = engine_pool()
    request = request_to(server, host="llm.test", pool=0.05, connect=30.0)
    with pytest.raises(PoolTimeout, match="dialing 1"):
        await pool.fetch(request)
    server.gate("dns").open()
    assert (await pool.fetch(request_to(server, host="llm.test"))).status == 200


async def test_the_pool_timeout_covers_the_dial(each_loop, serve, engine_pool, certificates):
    """Scenario 4: the wait for the handshake; the dial goes on and serves the next call."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(tls=trusting(certificates), http2=False)
    with pytest.raises(PoolTimeout, match="dialing 1"):
        await pool.fetch(request_to(server, pool=0.05, connect=30.0))
    server.gate("tls").open()
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 1


async def test_the_pool_timeout_is_one_for_queue_and_dial_together(
    each_loop, serve, engine_pool, certificates
):
    """Scenario 4: the timeout does not restart when a wait in the queue becomes a wait for a dial."""
    busy = serve(gated())
    other: ScriptedServer
    other = serve(json_reply(), tls=certificates.good, before_handshake=lambda: other.gate("tls").passage())
    pool = engine_pool(max_connections=1, tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, busy)
    began = time.monotonic()
    # Long enough for the dial to begin even if the machine stalls for a second.
    waiting = await queue_up(pool, pool.fetch(request_to(other, pool=2.0, connect=30.0)))
    busy.gate("go").open()
    await other.gate("tls").await_reached()
    with pytest.raises(PoolTimeout, match="dialing 1"):
        await waiting[0]
    assert 1.95 < time.monotonic() - began < 2.0 + AT_ONCE
    other.gate("tls").open()
    await asyncio.gather(*in_use)


@pytest.mark.parametrize("pool_timeout", [30.0, None])
async def test_a_total_that_ends_in_the_queue_is_no_pool_timeout(each_loop, serve, engine_pool, pool_timeout):
    """The nearer deadline counts, and the message names the configured seconds."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    with pytest.raises(TotalTimeout, match=r"total timeout of 0\.05 s.*in use 1, .*waiting 1, max 1"):
        await pool.fetch(request_to(server, pool=pool_timeout, total=0.05))
    with pytest.raises(PoolTimeout, match=r"within the pool timeout of 0\.05 s"):
        await pool.fetch(request_to(server, pool=0.05, total=30.0))
    assert pool.stats().pool_timeouts == 1
    server.gate("go").open()
    await asyncio.gather(*in_use)


def test_the_pool_timeout_of_a_thread(serve, engine_pool):
    """Scenario 4: a thread waits no longer than a task."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)

    async def main():
        in_use = await occupy(pool, server)
        with pytest.raises(PoolTimeout):
            await in_thread(pool.fetch_sync, request_to(server, pool=0.05))
        server.gate("go").open()
        await asyncio.gather(*in_use)

    asyncio.run(main())


async def test_a_waiter_that_timed_out_takes_no_connection_with_it(each_loop, serve, engine_pool):
    """Scenario 5: twenty waiters time out; the connection then serves the remaining one and becomes idle."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    # All start in one turn of the loop, so in this order: some may time out before the last arrives.
    calls = (pool.fetch(request_to(server, b"x", pool=0.2)) for _ in range(20))
    impatient = [asyncio.create_task(call) for call in calls]
    patient = asyncio.create_task(pool.fetch(request_to(server, b"patient")))
    results = await asyncio.gather(*impatient, return_exceptions=True)
    assert {type(result) for result in results} == {PoolTimeout}
    assert pool.stats().pool_timeouts == 20
    await until(lambda: pool.stats().waiting == 1)
    server.gate("go").open()
    await asyncio.gather(*in_use, patient)
    assert bodies(server) == [b"{}", b"patient"]
    assert (pool.stats().idle, pool.stats().in_use) == (1, 0)
    assert server.connections_accepted == 1


async def test_timeouts_in_the_very_moment_of_delivery_lose_nothing(each_loop, serve, engine_pool):
    """Scenario 5: pool timeouts are about as long as the earlier calls, so that both often end together."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    for number in range(40):
        calls = (pool.fetch(request_to(server, pool=0.0003 * (number % 10))) for _ in range(10))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} <= {WholeResponse, PoolTimeout}
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.peak_open == 1


# Many origins.


async def test_a_busy_origin_does_not_starve_another(each_loop, serve, engine_pool):
    """Scenario 6: a call to a second origin is served in its turn, while the first origin is busy."""
    busy, other = serve(gated()), serve(gated())
    pool = engine_pool(max_connections=2)
    calls = await occupy(pool, busy, busy)
    calls += await queue_up(pool, *(pool.fetch(request_to(busy)) for _ in range(3)))
    calls += await queue_up(pool, pool.fetch(request_to(other)))
    calls += await queue_up(pool, *(pool.fetch(request_to(busy)) for _ in range(10)))
    busy.gate("go").admit(4)  # three releases serve the earlier waiters, one frees a slot
    await other.await_requests(1)
    await busy.await_requests(5)
    assert len(busy.requests) == 5
    other.gate("go").open()  # not earlier: its slot would go to the next call
    busy.gate("go").open()
    await asyncio.gather(*calls)
    assert busy.peak_open == 2


async def test_the_other_loop_is_not_starved_either(server_loop, serve, engine_pool):
    """Scenario 6: a thread's call is served in its turn while the server loop calls the same origin."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    calls = await occupy(pool, server)
    thread = in_thread(pool.fetch_sync, request_to(server, b"thread"))
    calls += await queue_up(pool, thread)
    calls += await queue_up(pool, *(pool.fetch(request_to(server, b"loop")) for _ in range(5)))
    server.gate("go").open()
    await asyncio.gather(*calls)
    assert bodies(server)[1] == b"thread"
    assert server.peak_open == 1


async def test_max_connections_per_host_holds_over_both_loops(server_loop, serve, engine_pool):
    """Scenario 6: two connections to one host, over both loops, and room for another host."""
    busy, other = serve(gated()), serve(json_reply())
    pool = engine_pool(max_connections=4, max_connections_per_host=2)
    async with asyncio.TaskGroup() as calls:
        for _ in range(4):
            calls.create_task(pool.fetch(request_to(busy)))
            calls.create_task(in_thread(pool.fetch_sync, request_to(busy)))
        await busy.await_requests(2)
        assert (await pool.fetch(request_to(other, pool=AT_ONCE))).status == 200
        await until(lambda: pool.stats().waiting == 6)
        busy.gate("go").open()
    assert len(busy.requests) == 8
    assert busy.peak_open == 2


async def test_an_idle_connection_makes_way_for_another_origin(each_loop, serve, engine_pool):
    """Scenario 7: at the bound, the idle connection of A is closed before B is dialed."""
    first, second = serve(json_reply()), serve(json_reply())
    pool = engine_pool(max_connections=1)
    for _ in range(3):
        await pool.fetch(request_to(first))
        await pool.fetch(request_to(second))
    assert (first.connections_accepted, second.connections_accepted) == (3, 3)
    assert first.peak_open == second.peak_open == 1
    assert pool.stats().closed == {"evicted": 5}


async def test_an_idle_connection_makes_way_for_the_other_loop(server_loop, serve, engine_pool):
    """Scenario 7: at the bound, a connection idle on the server loop is closed so that a thread may dial."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    for _ in range(3):
        await pool.fetch(request_to(server))
        await in_thread(pool.fetch_sync, request_to(server))
    assert server.connections_accepted == 6
    assert server.peak_open == 1


async def test_an_origin_that_has_no_connection_gets_one_in_its_turn(each_loop, serve, engine_pool):
    """Scenario 7: five origins, all of them busy, share two connections."""
    servers = [serve(json_reply()) for _ in range(5)]
    pool = engine_pool(max_connections=2)

    async def call_often(server: ScriptedServer) -> None:
        for _ in range(10):
            await pool.fetch(request_to(server))

    await asyncio.gather(*(call_often(server) for server in servers for _ in range(2)))
    assert [len(server.requests) for server in servers] == [20] * 5


# The errors of refused callers.


async def test_refusals_say_what_the_pool_looks_like(each_loop, serve, engine_pool):
    """Scenario 8: the errors say in use, idle, dialing, waiting, max, and the last dial failure."""
    server, dead = serve(gated()), serve(json_reply())
    dead.refuse()
    pool = engine_pool("gpt", max_connections=2, max_waiting=1)
    with pytest.raises(ConnectFailed) as failure:
        await pool.fetch(request_to(dead))
    in_use = await occupy(pool, server, server)
    state = "in use 2, idle 0, dialing 0, waiting 1, max 2"
    with pytest.raises(PoolTimeout) as timeout:
        await pool.fetch(request_to(server, pool=0.05))
    assert "'gpt'" in str(timeout.value)
    assert str(server.url) in str(timeout.value)
    assert f"({state}; last dial failure: {failure.value})" in str(timeout.value)

    waiting = await queue_up(pool, pool.fetch(request_to(server)))
    with pytest.raises(PoolFull) as full:
        await pool.fetch(request_to(server))
    assert f"({state}; last dial failure: {failure.value})" in str(full.value)
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)


async def test_refusals_count_closing_connections(server_loop, serve, engine_pool):
    """A closing connection counts under the bound until it has closed."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    server.gate("go").open()
    await pool.fetch(request_to(server))
    with lock_of(pool):
        ledger_of(pool).drain(time.monotonic())  # without carrying out its orders
    stats = pool.stats()
    assert (stats.closing, stats.connections, stats.max_connections) == (1, 0, 1)
    with pytest.raises(PoolTimeout, match="in use 0, idle 0, dialing 0, closing 1, waiting 1, max 1"):
        await pool.fetch(request_to(server, pool=0.05))
    (entry,) = entries_of(pool)
    entry.connection.close()
    await until(lambda: pool.stats().closing == 0)


async def test_refusals_of_a_pool_that_dials_say_so(each_loop, serve, engine_pool, certificates):
    """Scenario 8: the figures are current, and include a dial in progress."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(max_connections=5, tls=trusting(certificates), http2=False)
    with pytest.raises(PoolTimeout, match="in use 0, idle 0, dialing 1, waiting 1, max 5"):
        await pool.fetch(request_to(server, pool=0.05))
    server.gate("tls").open()
