"""From an address to a connection: TCP, its settings, its failures; and prewarming."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
import time

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.loops.portal import adopt_server_loop, release_server_loop
from llm_pool.engine.request import WholeResponse
from llm_pool.exceptions import ConnectFailed, ConnectTimeout, PoolClosed, TLSFailed
from testbed import Gate
from testbed.behaviours import close, json_reply, steps
from testbed.ports import refused_port, unanswering_port
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import sockets_of

# Happy eyeballs.

TRIES = 3
"""How many dials are measured. The shortest counts: the machine may stall during one."""


async def test_a_dead_ipv6_address_costs_a_quarter_of_a_second(serve, engine_pool, fake_dns, each_loop):
    """Scenario 48: the IPv4 address is tried after 250 ms, while the connect to the first still hangs."""
    fake_dns.names["llm.test"] = ["::1", "127.0.0.1"]
    responses, elapsed = [], []
    with unanswering_port("::1") as port:
        server = serve(json_reply(), port=port)
        for _ in range(TRIES):
            began = time.monotonic()
            responses.append(await engine_pool().fetch(request_to(server, host="llm.test")))
            elapsed.append(time.monotonic() - began)
    assert [whole.status for whole in responses] == [200] * TRIES
    assert 0.2 < min(whole.marks.dialing for whole in responses) < 0.9
    assert min(elapsed) < 0.9


async def test_an_ipv6_address_that_refuses_costs_nothing(serve, engine_pool, fake_dns):
    """Scenario 48: the next address is tried at once."""
    fake_dns.names["llm.test"] = ["::1", "127.0.0.1"]
    with refused_port("::1") as port:
        server = serve(json_reply(), port=port)
        request = request_to(server, host="llm.test")
        responses = [await engine_pool().fetch(request) for _ in range(TRIES)]
    assert min(whole.marks.dialing for whole in responses) < 0.2


async def test_the_addresses_that_lost_are_closed(serve, engine_pool, fake_dns):
    """Scenario 48: a socket that is still connecting when another is connected gets closed."""
    fake_dns.names["llm.test"] = ["::1", "127.0.0.1"]
    with unanswering_port("::1") as port:
        server = serve(json_reply(), port=port)
        pool = engine_pool()
        await pool.fetch(request_to(server, host="llm.test"))
        assert [sock.getpeername() for sock in sockets_of(pool)] == [("127.0.0.1", port)]


# Socket options.


async def test_sockets_send_at_once_and_notice_a_dead_peer(serve, engine_pool, each_loop):
    """Scenario 48: TCP_NODELAY and TCP keep-alive are on; the first probe comes after a minute."""
    pool = engine_pool()
    await pool.fetch(request_to(serve(json_reply())))
    (sock,) = sockets_of(pool)
    options = {
        name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    }
    assert options == {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# Error messages.


async def test_a_refused_connect_says_so(serve, engine_pool, each_loop):
    """Scenario 48: the message is one sentence with the origin and the reason."""
    server = serve(json_reply())
    server.refuse()
    with pytest.raises(ConnectFailed) as caught:
        await engine_pool().fetch(request_to(server))
    assert str(caught.value) == f"no connection to {server.url}: Connection refused"


async def test_every_address_refused_is_one_sentence_too(serve, engine_pool, fake_dns):
    """Scenario 48: if two addresses fail for the same reason, the message names it once."""
    fake_dns.names["llm.test"] = ["127.0.0.1", "127.0.0.2"]
    server = serve(json_reply())
    server.refuse()
    with pytest.raises(ConnectFailed) as caught:
        await engine_pool().fetch(request_to(server, host="llm.test"))
    assert str(caught.value) == f"no connection to http://llm.test:{server.port}: Connection refused"


async def test_an_unreachable_network_says_so(serve, engine_pool):
    """Scenario 48: a TCP connect to a multicast address fails on any machine."""
    request = request_to(serve(json_reply()))
    request.origin = request.origin._replace(host="224.0.0.1")
    with pytest.raises(ConnectFailed) as caught:
        await engine_pool().fetch(request)
    assert str(caught.value) == (
        f"no connection to http://224.0.0.1:{request.origin.port}: {os.strerror(errno.ENETUNREACH)}"
    )


async def test_a_connect_without_answer_ends_at_the_connect_timeout(serve, engine_pool, each_loop):
    """Scenario 48: no socket is left open."""
    with unanswering_port() as port:
        request = request_to(serve(json_reply()), connect=0.1)
        request.origin = request.origin._replace(port=port)
        pool = engine_pool()
        with pytest.raises(ConnectTimeout, match=rf"^no connection to http://127.0.0.1:{port} within 0.1 s$"):
            await pool.fetch(request)
        assert sockets_of(pool) == []


# Cancelled dials.


async def test_closing_the_pool_in_a_connect_closes_the_socket(serve, engine_pool, each_loop):
    """Scenario 18: the dial is cancelled in TCP connect."""
    with unanswering_port() as port:
        request = request_to(serve(json_reply()))
        request.origin = request.origin._replace(port=port)
        pool = engine_pool()
        call = asyncio.create_task(pool.fetch(request))
        await until_pool(pool, lambda: sockets_of(pool))
        await pool.aclose()
        with pytest.raises(PoolClosed):
            await call
        assert sockets_of(pool) == []


async def test_closing_the_pool_in_a_handshake_closes_the_socket(serve, engine_pool, certificates, each_loop):
    """Scenario 19: the dial is cancelled in TLS, and the server sees the connection close."""
    gate = Gate()
    server = serve(json_reply(), tls=certificates.good, before_handshake=gate.passage)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    call = asyncio.create_task(pool.fetch(request_to(server)))
    await gate.await_reached()
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await call
    assert sockets_of(pool) == []
    gate.open()
    await server.await_until(lambda s: s.connections_open == 0)
    assert (server.handshakes, server.requests) == (0, [])


async def test_a_dial_whose_caller_has_left_feeds_the_pool(serve, engine_pool, certificates, each_loop):
    """Scenario 19: the caller is cancelled in TLS; the connection serves the next call."""
    gate = Gate()
    server = serve(json_reply(), tls=certificates.good, before_handshake=gate.passage)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    call = asyncio.create_task(pool.fetch(request_to(server)))
    await gate.await_reached()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open()
    await until_pool(pool, lambda: pool.stats().idle == 1)
    assert (await pool.fetch(request_to(server))).status == 200
    assert server.connections_accepted == 1


@pytest.mark.parametrize("ticks", range(1, 25))
async def test_a_dial_may_be_cancelled_in_any_step(serve, engine_pool, certificates, fake_dns, ticks):
    """Scenarios 17 to 19: the pool is closed at different times in a dial; no socket and no slot is left."""
    adopt_server_loop()
    try:
        server = serve(json_reply(), tls=certificates.good)
        fake_dns.names["llm.test"] = "127.0.0.1"
        pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
        call = asyncio.create_task(pool.fetch(request_to(server, host="llm.test")))
        for _ in range(ticks):
            await asyncio.sleep(0.0005)
        await pool.aclose()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(outcome, WholeResponse | PoolClosed)
        assert pool.stats().dialing == pool.stats().idle == 0
        await server.await_until(lambda s: s.connections_open == 0)
        assert sockets_of(pool) == []
    finally:
        release_server_loop()


# Prewarming.


async def test_after_prewarming_the_first_calls_dial_nothing(
    serve, engine_pool, fake_dns, certificates, each_loop
):
    """Scenario 13: the first calls do not wait for DNS, TCP or TLS."""
    server = serve(json_reply(), tls=certificates.good)
    fake_dns.names["llm.test"] = "127.0.0.1"
    pool = engine_pool(min_connections=2, tls=TLS(ca_file=certificates.ca_file))
    request = request_to(server, host="llm.test")
    await pool.prewarm(request.origin)
    await until_pool(pool, lambda: pool.stats().idle == 2)
    responses = await asyncio.gather(pool.fetch(request), pool.fetch(request))
    assert [whole.status for whole in responses] == [200, 200]
    assert (server.connections_accepted, server.handshakes, fake_dns.queries) == (2, 2, ["llm.test"])


async def test_prewarming_reads_the_trust_store_though_it_opens_no_connection(
    engine_pool, serve, certificates, each_loop, monkeypatch
):
    """Scenario 13: the first call finds its TLS context built."""
    built = threading.Event()
    build = ssl.create_default_context

    def watched(*args, **kwargs):
        built.set()
        return build(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", watched)
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(min_connections=0, tls=TLS(ca_file=certificates.ca_file))
    await pool.prewarm(request_to(server).origin)
    assert await asyncio.to_thread(built.wait, 5)
    assert server.connections_accepted == 0
    monkeypatch.setattr(ssl, "create_default_context", None)
    assert (await pool.fetch(request_to(server))).status == 200


async def test_prewarming_does_not_wait(engine_pool, serve, certificates, each_loop):
    """Scenario 13: a provider that hangs in its handshake does not delay startup."""
    gate = Gate()
    server = serve(json_reply(), tls=certificates.good, before_handshake=gate.passage)
    pool = engine_pool(min_connections=1, tls=TLS(ca_file=certificates.ca_file))
    async with asyncio.timeout(AT_ONCE):
        await pool.prewarm(request_to(server).origin)
    assert server.handshakes == 0
    gate.open()
    await until_pool(pool, lambda: pool.stats().idle == 1)


async def test_a_dead_provider_does_not_fail_prewarming(serve, engine_pool, each_loop):
    """Scenario 13: the connections are opened once the provider is up, without a call."""
    server = serve(json_reply())
    server.refuse()
    pool = engine_pool(min_connections=2)
    await pool.prewarm(request_to(server).origin)
    await until_pool(pool, lambda: pool.stats().dial_failure)
    server.listen_again()
    await until_pool(pool, lambda: pool.stats().idle == 2)
    assert server.requests == []


async def test_a_drain_is_followed_by_prewarming(serve, engine_pool, each_loop):
    """Scenario 13: new connections replace the drained ones without a call."""
    server = serve(json_reply())
    pool = engine_pool(min_connections=2)
    await pool.prewarm(request_to(server).origin)
    await until_pool(pool, lambda: pool.stats().idle == 2)
    assert await pool.adrain(5)
    await until_pool(pool, lambda: pool.stats().idle == 2)
    await server.await_until(lambda s: s.connections_accepted == 4)
    await server.await_until(lambda s: s.connections_open == 2)


async def test_what_the_provider_closes_is_prewarmed_again(serve, engine_pool, each_loop):
    """Scenario 13: ``min_connections`` also holds after the server closes a connection."""
    server = serve(steps(json_reply(), close))
    pool = engine_pool(min_connections=1)
    await pool.prewarm(request_to(server).origin)
    await until_pool(pool, lambda: pool.stats().idle == 1)
    await pool.fetch(request_to(server))
    await server.await_until(lambda s: s.connections_accepted == 2)
    await until_pool(pool, lambda: pool.stats().idle == 1)


async def test_a_bad_setting_fails_every_call_and_no_slot_is_lost(serve, engine_pool, each_loop):
    """Scenario 49: a dial that cannot begin fails its call like any other dial."""
    pool = engine_pool(max_connections=1, tls=TLS(ca_file="/nowhere/ca.pem"))
    request = request_to(serve(json_reply()))
    request.origin = request.origin._replace(scheme="https")
    for _ in range(3):
        with pytest.raises(TLSFailed, match=r"ca_file \(/nowhere/ca.pem\) .*No such file"):
            await pool.fetch(request)
