"""How many connections the pool opens, and when."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from django.test import override_settings

from llm_pool import asgi, pools
from llm_pool.engine.config import Origin
from llm_pool.engine.ledger.backoff import FIRST_PAUSE
from llm_pool.exceptions import ConnectFailed
from testbed import ScriptedServer
from testbed.behaviours import close, hold, json_reply, per_connection, steps
from testbed.behaviours import until as until_open
from tests.fixtures.callers import gated, in_thread, occupy, queue_up, trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import set_excess_linger

SLOW_DIAL = 0.15


# Growth.


async def test_fifty_at_once_open_what_the_work_needs_and_no_more(
    each_loop, serve, engine_pool, certificates
):
    """Scenario 9: the first fifty calls wait for their dials; the next five hundred need no more dials."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(max_keepalive_connections=100, tls=trusting(certificates), http2=False)

    async def burst() -> None:
        await asyncio.gather(*(pool.fetch(request_to(server)) for _ in range(50)))

    first = asyncio.create_task(burst())
    await until(lambda: pool.stats().waiting == 50)
    await server.gate("tls").await_reached(50)
    server.gate("tls").open()
    await first
    assert server.connections_accepted == 50
    for _ in range(10):
        await burst()
    assert server.connections_accepted == 50
    assert len(server.requests) == 550


async def test_calls_one_after_the_other_need_one_connection(each_loop, serve, engine_pool, certificates):
    """Scenario 9: fifty calls, after a dial that takes longer than all of them."""
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: asyncio.sleep(SLOW_DIAL))
    pool = engine_pool(tls=trusting(certificates), http2=False)
    for _ in range(50):
        await pool.fetch(request_to(server))
    assert server.connections_accepted == 1


async def test_a_freed_connection_beats_a_dial_and_the_late_dial_feeds_the_pool(
    each_loop, serve, engine_pool, certificates
):
    """Scenario 9: the waiter gets the released connection; the one dialed for it becomes idle."""
    server: ScriptedServer
    server = serve(gated(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    server.gate("tls").admit(1)
    pool = engine_pool(tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, server)
    waiting = await queue_up(pool, pool.fetch(request_to(server)))
    await server.gate("tls").await_reached(2)
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)
    assert pool.stats().dialing == 1
    assert {request.connection for request in server.requests} == {0}

    server.gate("tls").open()
    await until(lambda: pool.stats().idle == 2)
    server.gate("go").shut()
    busy = await occupy(pool, server, server)
    assert {request.connection for request in server.requests[2:]} == {0, 1}
    server.gate("go").open()
    await asyncio.gather(*busy)
    assert server.connections_accepted == 2


async def test_a_slow_dial_delays_no_other_dial_and_no_release(each_loop, serve, engine_pool, certificates):
    """Scenario 10: one handshake hangs; calls to the same origin and to another go on."""
    handshakes = itertools.count()

    async def the_first_stands_still() -> None:
        if next(handshakes) == 0:
            await server.gate("tls").passage()

    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=the_first_stands_still)
    other = serve(json_reply())
    pool = engine_pool(tls=trusting(certificates), http2=False)
    first = asyncio.create_task(pool.fetch(request_to(server, connect=30.0)))
    await server.gate("tls").await_reached()
    for _ in range(20):
        await pool.fetch(request_to(server))
        await pool.fetch(request_to(other))
    await first  # served by the dial of a later call
    assert pool.stats().dialing == 1
    assert (server.connections_accepted, other.connections_accepted) == (2, 1)
    server.gate("tls").open()


async def test_a_lookup_that_hangs_delays_no_other_origin(each_loop, serve, engine_pool, fake_dns):
    """Scenario 10: the same for a lookup."""
    server = serve(json_reply())
    fake_dns.names["llm.test"] = server.host
    fake_dns.gate = server.gate("dns")
    pool = engine_pool()
    slow = asyncio.create_task(pool.fetch(request_to(server, host="llm.test")))
    await server.gate("dns").await_reached()
    for _ in range(20):
        await pool.fetch(request_to(server))
    assert pool.stats().dialing == 1
    server.gate("dns").open()
    await slow


# Dials that fail.


async def test_when_all_dials_fail_every_waiter_gets_the_cause(each_loop, serve, engine_pool):
    """Scenario 11: each waiter gets its own error; when the server is back, the pool works again."""
    server = serve(json_reply())
    server.refuse()
    pool = engine_pool()
    results = await asyncio.gather(
        *(pool.fetch(request_to(server)) for _ in range(10)),
        *(in_thread(pool.fetch_sync, request_to(server)) for _ in range(2)),
        return_exceptions=True,
    )
    assert {type(result) for result in results} == {ConnectFailed}
    assert all("refused" in str(result) for result in results)
    assert all(isinstance(result.__cause__, OSError) for result in results)
    assert len(set(map(id, results))) == 12  # one exception for each call: tracebacks do not mix
    server.listen_again()
    assert (await pool.fetch(request_to(server))).status == 200


async def test_a_server_that_is_down_gets_no_storm_of_dials(each_loop, serve, engine_pool, certificates):
    """Scenario 11: ten callers retry at once, again and again; the server sees few dials."""
    down = True

    async def hang_up() -> None:
        if down:
            raise ConnectionResetError

    server = serve(json_reply(), tls=certificates.good, before_handshake=hang_up)
    pool = engine_pool(tls=trusting(certificates), http2=False)

    async def insist(times: int) -> None:
        for _ in range(times):
            with pytest.raises(ConnectFailed):
                await pool.fetch(request_to(server))

    await asyncio.gather(*(insist(1) for _ in range(10)))
    began, at_once = time.monotonic(), server.connections_accepted
    await asyncio.gather(*(insist(3) for _ in range(10)))
    pauses = (time.monotonic() - began) / (0.75 * FIRST_PAUSE)
    assert server.connections_accepted <= at_once + 1 + pauses  # one dial after each pause
    down = False
    results = await asyncio.gather(*(pool.fetch(request_to(server)) for _ in range(10)))
    assert [result.status for result in results] == [200] * 10


async def test_failing_dials_do_not_disturb_calls_on_connections(each_loop, serve, engine_pool):
    """Scenario 11: while a connection is open, waiters wait for it even if a dial fails."""
    server = serve(gated())
    pool = engine_pool(max_connections=5)
    in_use = await occupy(pool, server)
    server.refuse()
    waiting = await queue_up(pool, pool.fetch(request_to(server)))
    await until(lambda: pool.stats().dial_failure)
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting)
    assert len(server.requests) == 2
    server.listen_again()


# Shrinking.


async def test_the_next_bursts_find_the_connections_of_the_first(each_loop, serve, engine_pool, monkeypatch):
    """Scenario 12: though more are idle between the bursts than ``max_keepalive_connections``."""
    set_excess_linger(monkeypatch, 60.0)
    server = serve(gated())
    pool = engine_pool(max_keepalive_connections=2)
    for number in range(1, 11):
        server.gate("go").shut()
        calls = [asyncio.create_task(pool.fetch(request_to(server))) for _ in range(10)]
        await server.await_requests(10 * number)
        server.gate("go").open()
        await asyncio.gather(*calls)
    assert server.connections_accepted == 10


async def test_without_kept_connections_each_closes_after_its_call(each_loop, serve, engine_pool):
    """Scenario 12: ``max_keepalive_connections`` 0."""
    server, pool = serve(json_reply()), engine_pool(max_keepalive_connections=0)
    for number in range(1, 4):
        await pool.fetch(request_to(server))
        await server.await_until(lambda s: s.connections_open == 0)
        assert pool.stats().closed == {"excess": number}


async def test_after_a_burst_the_pool_shrinks_to_max_keepalive_then_to_min(
    each_loop, serve, engine_pool, monkeypatch
):
    """Scenario 12: six connections were in use; three are kept, then one after ``keepalive_expiry``."""
    set_excess_linger(monkeypatch, 0.1)
    server = serve(gated())
    pool = engine_pool(max_keepalive_connections=3, keepalive_expiry=0.4, min_connections=1)
    await pool.prewarm(Origin(*server.origin))
    calls = await occupy(pool, *[server] * 6)
    server.gate("go").open()
    await asyncio.gather(*calls)
    await server.await_until(lambda s: s.connections_open == 1)
    assert pool.stats().closed == {"excess": 3, "expired": 2}
    accepted = server.connections_accepted
    await asyncio.sleep(0.5)  # longer than the expiry: the minimum is kept
    assert server.connections_open == 1
    await pool.fetch(request_to(server))
    assert server.connections_accepted == accepted


async def test_without_a_minimum_everything_expires(each_loop, serve, engine_pool):
    """Scenario 12: by default ``min_connections`` is 0, so each idle connection expires, on both loops."""
    server = serve(json_reply())
    pool = engine_pool(keepalive_expiry=0.1)
    await asyncio.gather(pool.fetch(request_to(server)), in_thread(pool.fetch_sync, request_to(server)))
    await server.await_until(lambda s: s.connections_open == 0)
    await until(lambda: pool.stats().connections == 0)


# Prewarming.


async def test_a_prewarmed_pool_dials_nothing_at_the_first_request(
    each_loop, serve, engine_pool, certificates, fake_dns
):
    """Scenario 13: DNS, TCP and TLS are done before; the first two requests find two connections."""
    server = serve(gated(), tls=certificates.good)
    fake_dns.names["llm.test"] = server.host
    pool = engine_pool(min_connections=2, tls=trusting(certificates), http2=False)
    await pool.prewarm(Origin("https", "llm.test", server.port))
    await server.await_until(lambda s: s.handshakes == 2)
    await until(lambda: pool.stats().idle == 2)
    before = len(fake_dns.queries)
    calls = [asyncio.create_task(pool.fetch(request_to(server, host="llm.test"))) for _ in range(2)]
    await server.await_requests(2)
    server.gate("go").open()
    responses = await asyncio.gather(*calls)
    assert [whole.marks.dialing for whole in responses] == [0.0, 0.0]
    assert server.connections_accepted == 2
    assert len(fake_dns.queries) == before


async def test_a_prewarmed_connection_that_dies_is_replaced(each_loop, serve, engine_pool):
    """Scenario 13: the minimum is kept, not only reached once."""
    server = serve(per_connection(steps(until_open("end"), close), hold))
    pool = engine_pool(min_connections=1)
    await pool.prewarm(Origin(*server.origin))
    await server.await_until(lambda s: s.connections_open == 1)
    await until(lambda: pool.stats().idle == 1)
    server.gate("end").open()
    await server.await_until(lambda s: s.connections_accepted == 2)
    await until(lambda: pool.stats().idle == 1)


async def test_a_server_that_closes_at_once_is_not_prewarmed_without_end(each_loop, serve, engine_pool):
    """Scenario 13: such as one that refuses the client certificate in TLS 1.3."""
    server = serve(close)
    pool = engine_pool(min_connections=2)
    await pool.prewarm(Origin(*server.origin))
    started = time.monotonic()
    await server.await_until(lambda s: s.connections_accepted >= 6)
    assert time.monotonic() - started > 2 * FIRST_PAUSE  # two pauses, the second twice as long


async def test_prewarming_a_dead_server_goes_on_in_the_background(each_loop, serve, engine_pool):
    """Scenario 13: it raises nothing, and opens the connections once the server is up."""
    server = serve(json_reply())
    server.refuse()
    pool = engine_pool(min_connections=2)
    await pool.prewarm(Origin(*server.origin))
    await until(lambda: pool.stats().dial_failure)
    server.listen_again()
    await server.await_until(lambda s: s.connections_open == 2)


async def test_startup_prewarms_and_a_dead_provider_does_not_fail_it(serve):
    """Scenario 13: through ``startup`` and ``shutdown``, as the ASGI lifespan calls them."""
    alive, dead = serve(json_reply()), serve(json_reply())
    dead.refuse()
    settings = {
        alias: {"BASE_URL": f"{server.url}/v1", "API_KEY": "k", "LIMITS": {"min_connections": 2}}
        for alias, server in {"default": alive, "dead": dead}.items()
    }
    with override_settings(LLM_POOL=settings):
        await asgi.startup()
        await alive.await_until(lambda s: s.connections_open == 2)
        await until(lambda: pools["dead"].stats().dial_failure)
        assert (await pools["default"].arequest("GET", "/models")).status_code == 200
        assert alive.connections_accepted == 2
        await asgi.shutdown()
        await alive.await_until(lambda s: s.connections_open == 0)
