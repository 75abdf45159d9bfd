"""HTTP/2 on the native engine and on httpcore."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.exceptions import ReadTimeout, TLSFailed
from testbed.http2 import offering_http2
from testbed.tls import server_context
from tests.backends.conftest import HTTP2, KINDS
from tests.backends.servers import answer, by_path, gated, over_http1, over_http2
from tests.fixtures.callers import until

BY_ALPN = {"HTTP2": True}


@pytest.fixture
def secure(serve, certificates, configure):
    """``secure(behaviour, http2=..., streams=...)``: a TLS server, with or without HTTP/2, and its pool."""

    def make(behaviour, *, http2=True, **settings):
        script = over_http2(behaviour) if http2 else over_http1(behaviour)
        server = serve(script, tls=offering_http2(certificates) if http2 else certificates.good)
        return server, configure(server, TLS={"ca_file": certificates.ca_file}, **{**BY_ALPN, **settings})

    return make


@pytest.mark.kinds(HTTP2)
async def test_http2_is_used_if_the_server_offers_it(secure):
    """HTTP2 True: by ALPN."""
    server, pool = secure(answer, streams=32)
    response = await pool.arequest("GET", "/x")
    assert response.http_version == "HTTP/2"
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP2)
async def test_http1_is_used_if_the_server_does_not_offer_http2(secure):
    """HTTP2 True, and a server without ALPN."""
    server, pool = secure(answer, http2=False, streams=32)
    response = await pool.arequest("GET", "/x")
    assert response.http_version == "HTTP/1.1"
    assert server.connections_accepted == 1


async def test_http2_is_not_used_if_it_is_off(serve, certificates, configure):
    """HTTP2 False, with a server that offers h2; and aiohttp, which does not support HTTP/2."""
    context = server_context(certificates.authority.issue_cert("127.0.0.1"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = serve(over_http1(answer), tls=context)
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, HTTP2=False)
    assert (await pool.arequest("GET", "/x")).http_version == "HTTP/1.1"


@pytest.mark.kinds(HTTP2)
async def test_simultaneous_calls_on_a_cold_pool_share_a_connection(secure):
    """Twenty calls, one handshake."""
    server, pool = secure(gated(), streams=32)
    async with asyncio.TaskGroup() as calls:
        for _ in range(20):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(20)
        server.gate("go").open()
    assert server.connections_accepted == 1
    assert pool.stats().opened == 1


@pytest.mark.kinds(HTTP2)
async def test_simultaneous_calls_share_a_tunnel(serve, serve_proxy, certificates, configure):
    """The proxy speaks HTTP/1.1, the server behind it HTTP/2."""
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
    """LIMITS.max_streams_per_connection 3: ten calls on four connections."""
    server, pool = secure(gated(), streams=3)
    async with asyncio.TaskGroup() as calls:
        for _ in range(10):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(10)
        assert server.connections_open == 4
        server.gate("go").open()
    assert max(conn.peer.peak for conn in server.connections) == 3


@pytest.mark.kinds(HTTP2)
async def test_calls_beyond_the_streams_of_all_connections_are_queued(secure):
    """Two connections carry two calls each; the other five wait."""
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
async def test_all_calls_are_served_if_the_server_turns_out_to_speak_http1(secure):
    """A cold pool assigns several calls to a connection, whose server then takes one at a time."""
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
async def test_a_refused_call_may_be_refused_again(serve, certificates, configure):
    """Three dials for four, four and two calls: a call refused by the first connection may join the third."""
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
async def test_cancelling_the_call_that_dials_does_not_fail_the_others(serve, certificates, configure):
    """The native engine continues the dial; with httpcore, another waiting call dials."""
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
async def test_calls_that_share_a_dial_share_its_failure(serve, certificates, configure):
    """Scenario 11: four calls, one failed handshake, and no further dials."""

    async def close_early(conn):
        await conn.read_some()
        await conn.wait_for("close")
        await conn.close()

    server = serve(close_early)
    url = server.url.replace("http:", "https:")
    pool = configure(url, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN)
    calls = [asyncio.create_task(pool.arequest("GET", "/x")) for _ in range(4)]
    await server.gate("close").await_reached(1)
    await until(lambda: pool.stats().in_use + pool.stats().waiting > 0)
    server.gate("close").open()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TLSFailed}
    assert len(set(map(id, outcomes))) == 4
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP2)
async def test_a_failed_call_does_not_affect_others_on_its_connection(serve, play, configure):
    """Neither a timeout nor a cancellation does."""

    async def hold(exchange):
        await exchange.hold()

    server = serve(play(by_path(hold=hold, gated=gated())))
    pool = configure(server, streams=32)
    async with asyncio.TaskGroup() as calls:
        others = [calls.create_task(pool.arequest("GET", "/gated")) for _ in range(5)]
        await server.await_requests(5)
        cancelled = calls.create_task(pool.arequest("GET", "/hold"))
        await server.await_requests(6)
        with pytest.raises(ReadTimeout):
            await pool.aclient.get("/hold", timeout=0.1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        server.gate("go").open()
    assert [task.result().status_code for task in others] == [200] * 5
    assert pool.stats().in_use == 0


@pytest.mark.kinds([kind for kind in KINDS if kind.endswith("http2")])
async def test_http2_with_a_real_server(start_nghttpd, certificates, configure):
    """nghttpd, over TLS."""
    program = start_nghttpd(certificate=certificates.good_files)
    pool = configure(program.url, TLS={"ca_file": certificates.ca_file}, streams=32, **BY_ALPN)
    responses = await asyncio.gather(*(pool.aclient.get(f"{program.url}/completion.json") for _ in range(40)))
    assert {response.http_version for response in responses} == {"HTTP/2"}
    assert {response.json()["object"] for response in responses} == {"chat.completion"}
    assert pool.stats().opened <= 2
