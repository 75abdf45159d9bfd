"""HTTP/2 where the server offers it: on the native engine, and on httpcore."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.exceptions import ReadTimeout, TLSFailed
from testbed.http2 import offering_http2
from testbed.tls import server_context
from tests.backends.conftest import HTTP2, KINDS
from tests.backends.servers import answer, gated, over_http1, over_http2, told
from tests.fixtures.callers import until

BY_ALPN = {"HTTP2": True}


@pytest.fixture
def secure(serve, certificates, configure):
    """``secure(behaviour, http2=..., streams=...)``: a server that offers HTTP/2 or not, and its pool."""

    def make(behaviour, *, http2=True, **settings):
        script = over_http2(behaviour) if http2 else over_http1(behaviour)
        server = serve(script, tls=offering_http2(certificates) if http2 else certificates.good)
        return server, configure(server, TLS={"ca_file": certificates.ca_file}, **{**BY_ALPN, **settings})

    return make


@pytest.mark.kinds(HTTP2)
async def test_http2_is_spoken_where_it_is_offered(secure):
    """HTTP2 True: by ALPN."""
    server, pool = secure(answer, streams=32)
    response = await pool.arequest("GET", "/x")
    assert response.http_version == "HTTP/2"
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP2)
async def test_http1_is_spoken_where_http2_is_not_offered(secure):
    """HTTP2 True, and a server that has none."""
    server, pool = secure(answer, http2=False, streams=32)
    response = await pool.arequest("GET", "/x")
    assert response.http_version == "HTTP/1.1"
    assert server.connections_accepted == 1


async def test_http2_is_not_offered_where_it_is_off(serve, certificates, configure):
    """HTTP2 False; and aiohttp, which has none."""
    context = server_context(certificates.authority.issue_cert("127.0.0.1"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = serve(over_http1(answer), tls=context)
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, HTTP2=False)
    assert (await pool.arequest("GET", "/x")).http_version == "HTTP/1.1"


@pytest.mark.kinds(HTTP2)
async def test_calls_at_once_on_a_cold_pool_share_a_connection(secure):
    """Twenty callers, one handshake."""
    server, pool = secure(gated(), streams=32)
    async with asyncio.TaskGroup() as calls:
        for _ in range(20):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(20)
        server.gate("go").open()
    assert server.connections_accepted == 1
    assert pool.stats().opened == 1


@pytest.mark.kinds(HTTP2)
async def test_calls_at_once_share_a_tunnel(serve, serve_proxy, certificates, configure):
    """What the proxy speaks says nothing of the server behind it."""
    server = serve(over_http2(gated()), tls=offering_http2(certificates))
    proxy = serve_proxy(names={"llm.test:443": ("127.0.0.1", server.port)})
    pool = configure(
        "https://llm.test", PROXY=proxy.url, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN
    )
    async with asyncio.TaskGroup() as calls:
        for _ in range(10):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(10)
        server.gate("go").open()
    assert proxy.tunnels == ["llm.test:443"]
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP2)
async def test_streams_are_spread_over_connections(secure):
    """LIMITS.max_streams_per_connection: ten calls at three to a connection."""
    server, pool = secure(gated(), streams=3)
    async with asyncio.TaskGroup() as calls:
        for _ in range(10):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(10)
        assert server.connections_open == 4
        server.gate("go").open()
    assert max(conn.peer.peak for conn in server.connections) == 3


@pytest.mark.kinds(HTTP2)
async def test_beyond_all_streams_callers_wait_in_order(secure):
    """Two connections of two calls each, and the queue for all others."""
    server, pool = secure(gated(), streams=2, LIMITS={"max_connections": 2, "max_streams_per_connection": 2})
    async with asyncio.TaskGroup() as calls:
        for number in range(9):
            calls.create_task(pool.arequest("GET", f"/{number}"))
        await server.await_requests(4)
        await until(lambda: pool.stats().waiting == 5)
        server.gate("go").open()
    assert server.peak_open == 2
    targets = [int(request.target.rsplit("/", 1)[-1]) for request in server.requests]
    assert sorted(targets[:4]) == [0, 1, 2, 3]
    assert sorted(targets) == list(range(9))


@pytest.mark.kinds(HTTP2)
async def test_callers_who_had_hoped_for_http2_are_all_served(secure):
    """A cold pool expects many calls on a connection, and learns that the server takes one at a time."""
    server, pool = secure(gated(), http2=False, streams=32, LIMITS={"max_connections": 4})
    async with asyncio.TaskGroup() as calls:
        for _ in range(12):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(4)
        await until(lambda: pool.stats().waiting == 8)
        assert server.connections_open == 4
        server.gate("go").open()
    assert len(server.requests) == 12
    assert server.peak_open == 4
    assert pool.stats().in_use == 0


@pytest.mark.kinds(HTTP2)
async def test_who_was_turned_away_may_be_turned_away_again(serve, certificates, configure):
    """Three dials at once, each hoped to carry four calls; the second to be known had room for two more."""
    server = serve(
        over_http1(gated()), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage()
    )
    settings = {"streams": 4, "LIMITS": {"max_connections": 3}, **BY_ALPN}
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, **settings)
    calls = [asyncio.create_task(pool.arequest("GET", "/x")) for _ in range(10)]
    await server.gate("tls").await_reached(1)
    await until(lambda: pool.stats().connections == 3)
    server.gate("tls").admit()
    await server.await_requests(1)
    await until(lambda: pool.stats().replays >= 3 or pool.stats().waiting)
    server.gate("tls").open()
    server.gate("go").open()
    assert [(await call).status_code for call in calls] == [200] * 10


@pytest.mark.kinds(HTTP2)
async def test_the_caller_that_dials_may_leave(serve, certificates, configure):
    """Another takes over: those who share a dial do not share its caller's fate."""
    server = serve(
        over_http2(answer),
        tls=offering_http2(certificates),
        before_handshake=lambda: server.gate("tls").passage(),
    )
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN)
    calls = [asyncio.create_task(pool.arequest("GET", f"/{number}")) for number in range(3)]
    await server.gate("tls").await_reached(1)
    calls[0].cancel()
    await asyncio.gather(calls[0], return_exceptions=True)
    server.gate("tls").open()
    assert [(await call).status_code for call in calls[1:]] == [200, 200]


@pytest.mark.kinds(HTTP2)
async def test_those_who_share_a_dial_share_its_failure(serve, certificates, configure):
    """Scenario 11: four callers, one handshake that fails, and no storm of others."""

    async def leave(conn):
        await conn.read_some()
        await conn.wait_for("leave")
        await conn.close()

    server = serve(leave)
    url = server.url.replace("http:", "https:")
    pool = configure(url, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN)
    calls = [asyncio.create_task(pool.arequest("GET", "/x")) for _ in range(4)]
    await server.gate("leave").await_reached(1)
    await until(lambda: pool.stats().in_use + pool.stats().waiting > 0)
    server.gate("leave").open()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TLSFailed}
    assert len(set(map(id, outcomes))) == 4
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP2)
async def test_one_call_that_fails_leaves_the_others_alone(serve, play, configure):
    """A timeout, and a caller who goes away, on a connection that others use."""

    async def hold(exchange):
        await exchange.hold()

    server = serve(play(told(hold=hold, gated=gated())))
    pool = configure(server, streams=32)
    async with asyncio.TaskGroup() as calls:
        others = [calls.create_task(pool.arequest("GET", "/gated")) for _ in range(5)]
        await server.await_requests(5)
        left = calls.create_task(pool.arequest("GET", "/hold"))
        await server.await_requests(6)
        with pytest.raises(ReadTimeout):
            await pool.aclient.get("/hold", timeout=0.1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        server.gate("go").open()
    assert [task.result().status_code for task in others] == [200] * 5
    assert pool.stats().in_use == 0


@pytest.mark.kinds([kind for kind in KINDS if kind.endswith("http2")])
async def test_real_servers(start_nghttpd, certificates, configure):
    """nghttpd, over TLS."""
    program = start_nghttpd(certificate=certificates.good_files)
    pool = configure(program.url, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN)
    responses = await asyncio.gather(*(pool.aclient.get(f"{program.url}/completion.json") for _ in range(40)))
    assert {response.http_version for response in responses} == {"HTTP/2"}
    assert {response.json()["object"] for response in responses} == {"chat.completion"}
    assert pool.stats().opened <= 2
