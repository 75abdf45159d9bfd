"""Each row of the table in docs/engines.md acts on each engine that has it; counted at the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_pool.checks import UNSUPPORTED, check_settings
from llm_pool.engine.loops import portal
from llm_pool.exceptions import ConnectTimeout, InvalidResponse, ProxyFailed, TLSFailed
from testbed.behaviours import json_reply
from tests.backends.conftest import HTTP1, KINDS
from tests.backends.servers import answer, gated
from tests.scenarios.callers import in_thread, until

WITH_DNS_CACHE = [kind for kind in KINDS if not kind.startswith("httpcore")]


async def burst(pool, server, count):
    """So many calls at once, each on a connection of its own."""
    server.gate("go").shut()
    came = len(server.requests)
    async with asyncio.TaskGroup() as calls:
        for _ in range(count):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(came + count)
        server.gate("go").open()


# LIMITS


async def test_only_so_many_connections_are_kept(serve, play, configure):
    """max_keepalive_connections."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 5, "max_keepalive_connections": 2})
    await burst(pool, server, 5)
    await server.await_until(lambda s: s.connections_open == 2)
    assert pool.stats().idle == 2


async def test_an_idle_connection_expires(server, configure):
    """keepalive_expiry; aiohttp's keepalive_timeout."""
    pool = configure(server, LIMITS={"keepalive_expiry": 0.1})
    await pool.arequest("GET", "/x")
    await server.await_until(lambda s: s.connections_open == 0)
    assert pool.stats().closed == {"expired": 1}


async def test_an_idle_connection_stays_where_nothing_expires(server, configure):
    """keepalive_expiry None."""
    pool = configure(server, LIMITS={"keepalive_expiry": None, "max_lifetime": None})
    await pool.arequest("GET", "/x")
    await asyncio.sleep(0.3)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 1


async def test_a_connection_is_replaced_at_the_end_of_its_lifetime(server, configure):
    """max_lifetime."""
    pool = configure(server, LIMITS={"max_lifetime": 0.2})
    await pool.arequest("GET", "/x")
    await server.await_until(lambda s: s.connections_open == 0)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 2


@pytest.mark.kinds([kind for kind in KINDS if kind.startswith("native")])
async def test_connections_are_opened_ahead(server, configure):
    """min_connections."""
    pool = configure(server, LIMITS={"min_connections": 2})
    await pool.aprewarm()
    await server.await_until(lambda s: s.connections_open == 2)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 2


@pytest.mark.kinds([kind for kind in KINDS if not kind.startswith("native")])
async def test_an_engine_that_opens_none_ahead_says_so(server, configure):
    """min_connections: a warning, and no connection that is not there in the stats."""
    pool = configure(server, LIMITS={"min_connections": 2})
    assert [message.id for message in check_settings()] == ["llm_pool.W004"]
    await pool.aprewarm()
    assert pool.stats().connections == 0
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert pool.stats().connections == 1


# HEADERS


@pytest.mark.parametrize("call", ["complete", "request"])
def test_default_headers_go_out(serve, play, configure, call):
    """HEADERS, whichever way a call takes."""
    server = serve(play(answer))
    pool = configure(server, HEADERS={"X-Team": "blue"})
    if call == "request":
        pool.request("GET", "/x")
    else:
        with pytest.raises(InvalidResponse):  # the server is no model
            pool.complete("hello")
    assert server.requests[0].headers["x-team"] == "blue"
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


# DNS


@pytest.mark.parametrize(("ttl", "queries"), [(300.0, 1), (0.0, 2)])
@pytest.mark.kinds(WITH_DNS_CACHE)
async def test_names_are_kept_for_their_ttl(serve, play, configure, fake_dns, ttl, queries):
    """DNS.ttl: aiohttp's ttl_dns_cache; 0 is its use_dns_cache=False."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server = serve(play(answer))
    pool = configure(
        f"http://llm.test:{server.port}", DNS={"ttl": ttl}, LIMITS={"max_keepalive_connections": 0}
    )
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert fake_dns.queries == ["llm.test"] * queries
    assert server.connections_accepted == 2


@pytest.mark.kinds(WITH_DNS_CACHE)
async def test_a_failed_look_up_is_kept_for_its_ttl(configure, fake_dns):
    """DNS.negative_ttl."""
    pool = configure("http://nobody.test:1", DNS={"negative_ttl": 60.0})
    for _ in range(2):
        with pytest.raises(Exception, match="has no address"):
            await pool.arequest("GET", "/x")
        await asyncio.sleep(0.3)  # the pool's own pause after a failure
    assert fake_dns.queries == ["nobody.test"]


@pytest.mark.kinds(["httpcore-http1"])
async def test_an_engine_without_a_cache_asks_each_time_and_says_so(serve, configure, fake_dns):
    """DNS.ttl under httpcore: a warning, and a question for each connection."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server = serve(json_reply())
    pool = configure(
        f"http://llm.test:{server.port}", DNS={"ttl": 300.0}, LIMITS={"max_keepalive_connections": 0}
    )
    assert "llm_pool.W004" in [message.id for message in check_settings()]
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert fake_dns.queries == ["llm.test"] * 2
    await in_thread(portal.stop)


@pytest.mark.kinds(WITH_DNS_CACHE)
async def test_names_are_looked_up_by_aiodns(serve, play, configure, name_server):
    """DNS.resolver: aiohttp's AsyncResolver, beneath the same cache."""
    name_server.names["llm.test"] = "127.0.0.1"
    server = serve(play(answer))
    pool = configure(
        f"http://llm.test:{server.port}",
        DNS={"resolver": "aiodns"},
        LIMITS={"max_keepalive_connections": 0},
    )
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert name_server.queries == ["llm.test"]
    assert server.connections_accepted == 2


@pytest.mark.kinds(["httpcore-http1"])
async def test_an_engine_that_asks_the_system_itself_says_so(serve, configure, fake_dns, name_server):
    """DNS.resolver under httpcore: a warning, and not a question by aiodns."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server = serve(json_reply())
    pool = configure(f"http://llm.test:{server.port}", DNS={"resolver": "aiodns"})
    assert "llm_pool.W004" in [message.id for message in check_settings()]
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert (fake_dns.queries, name_server.queries) == (["llm.test"], [])
    await in_thread(portal.stop)


# TLS


async def test_the_authority_is_ours_to_name(serve, play, configure, certificates):
    """TLS.ca_file."""
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    assert (await pool.arequest("GET", "/x")).status_code == 200
    stranger = configure(server)
    with pytest.raises(TLSFailed, match="certificate was refused"):
        await stranger.arequest("GET", "/x")


async def test_certificates_may_go_unverified(serve, play, configure, certificates):
    """TLS.verify."""
    server = serve(play(answer), tls=certificates.self_signed)
    assert (await configure(server, TLS={"verify": False}).arequest("GET", "/x")).status_code == 200


async def test_a_client_shows_its_certificate(serve, play, configure, certificates):
    """TLS.client_cert."""
    server = serve(play(answer), tls=certificates.requires_client_cert)
    pool = configure(server, TLS={"ca_file": certificates.ca_file, "client_cert": certificates.client_cert})
    assert (await pool.arequest("GET", "/x")).status_code == 200


async def test_a_ready_context_takes_the_place_of_all(serve, play, configure, certificates):
    """TLS.context."""
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"context": certificates.client_context()})
    assert (await pool.arequest("GET", "/x")).status_code == 200


async def test_a_file_that_is_not_there_is_named(serve, play, configure, certificates):
    """TLS.ca_file."""
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"ca_file": "/no/such.pem"})
    with pytest.raises(TLSFailed, match=r"the TLS setting ca_file \(/no/such.pem\) cannot be used"):
        await pool.arequest("GET", "/x")


# PROXY


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_proxy_forwards(serve, serve_proxy, configure, monkeypatch, by):
    """PROXY, and HTTP_PROXY where it is None; with credentials."""
    server = serve(json_reply())
    proxy = serve_proxy(credentials="user:pass word")
    proxy.names["llm.test"] = proxy.names["llm.test:80"] = ("127.0.0.1", server.port)
    url = proxy.url_with("user:pass%20word")
    if by == "environment":
        monkeypatch.setenv("HTTP_PROXY", url)
    pool = configure("http://llm.test", PROXY=url if by == "setting" else None)
    for _ in range(2):
        assert (await pool.arequest("GET", "/x?a=b")).status_code == 200
    assert [url.replace(":80/", "/") for url in proxy.forwarded] == ["http://llm.test/v1/x?a=b"] * 2
    assert proxy.connections_accepted == 1
    assert server.requests[0].headers["host"] == "llm.test"


@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_proxy_tunnels(serve, play, serve_proxy, configure, certificates, monkeypatch, by):
    """Scenario 50: PROXY, and HTTPS_PROXY where it is None; TLS is with the server at the far end."""
    server = serve(play(answer), tls=certificates.good)
    proxy = serve_proxy(credentials="user:secret", names={"llm.test:443": ("127.0.0.1", server.port)})
    url = proxy.url_with("user:secret")
    if by == "environment":
        monkeypatch.setenv("HTTPS_PROXY", url)
    pool = configure(
        "https://llm.test",
        PROXY=url if by == "setting" else None,
        TLS={"ca_file": certificates.ca_file},
    )
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert proxy.tunnels == ["llm.test:443"]
    assert server.connections_accepted == 1


async def test_no_proxy_is_honoured(serve, play, serve_proxy, configure, monkeypatch, fake_dns):
    """Scenario 50: NO_PROXY."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server, proxy = serve(play(answer)), serve_proxy()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "llm.test")
    pool = configure(f"http://llm.test:{server.port}", PROXY=None)
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert proxy.connections_accepted == 0
    await in_thread(portal.stop)


@pytest.mark.parametrize("how", [{"refuse": 403}, {"credentials": "user:other"}])
async def test_a_tunnel_that_is_not_opened_says_why(serve_proxy, configure, certificates, how):
    """Scenario 50: the proxy's answer is in the message, the password is not."""
    proxy = serve_proxy(**how)
    pool = configure(
        "https://llm.test", PROXY=proxy.url_with("user:secret"), TLS={"ca_file": certificates.ca_file}
    )
    status = how.get("refuse", 407)
    with pytest.raises(ProxyFailed, match=rf"opened no tunnel to https://llm.test: .*{status}") as caught:
        await pool.arequest("GET", "/x")
    assert "secret" not in str(caught.value)


async def hang_up(conn):
    await conn.close()


async def babble(conn):
    await conn.send(b"220 mail.test ESMTP\r\n\r\n")
    await conn.close()


@pytest.mark.parametrize(("ends", "why"), [(hang_up, "it closed the connection"), (babble, "it answered ")])
async def test_a_proxy_that_is_none_is_named(serve_proxy, configure, certificates, ends, why):
    """Scenario 50: it closes, or speaks something else."""
    proxy = serve_proxy(before_tunnel=ends)
    pool = configure("https://llm.test", PROXY=proxy.url, TLS={"ca_file": certificates.ca_file})
    with pytest.raises(ProxyFailed, match=f"opened no tunnel to https://llm.test: {why}"):
        await pool.arequest("GET", "/x")
    assert pool.stats().dial_failures == {"ProxyFailed": 1}


async def test_a_proxy_that_never_answers_ends_at_the_connect_timeout(serve_proxy, configure):
    """TIMEOUTS.connect: the tunnel is a part of the dial."""
    proxy = serve_proxy(stall=True)
    pool = configure("https://llm.test", PROXY=proxy.url, TIMEOUTS={"connect": 0.5, "total": 10.0})
    with pytest.raises(ConnectTimeout, match=r"no connection to https://llm.test within 0\.5 s"):
        await pool.arequest("GET", "/x")


# UDS


async def test_a_sidecar_behind_a_unix_socket(serve, play, configure, tmp_path):
    """UDS: the socket takes the place of name and port, and is kept like any other."""
    path = str(tmp_path / "llm.sock")
    server = serve(play(answer), uds=path)
    pool = configure("http://llm.test", UDS=path)
    for _ in range(3):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert server.connections_accepted == 1
    headers = server.requests[0].headers
    assert (headers.get("host") or headers[":authority"]) == "llm.test"


async def test_tls_over_a_unix_socket(kind, serve, play, configure, certificates, tmp_path):
    """UDS: aiohttp would send in clear what was meant to be encrypted, and is not let."""
    path = str(tmp_path / "llm.sock")
    server = serve(play(answer), uds=path, tls=certificates.good)
    pool = configure("https://llm.test", UDS=path, TLS={"ca_file": certificates.ca_file})
    if kind != "aiohttp":
        assert (await pool.arequest("GET", "/x")).status_code == 200
        return
    assert "llm_pool.E007" in [message.id for message in check_settings()]
    with pytest.raises(TLSFailed, match="aiohttp speaks none over a Unix domain socket"):
        await pool.arequest("GET", "/x")
    assert server.connections_accepted == 0


async def test_a_socket_that_is_not_there_is_named(configure, tmp_path):
    """UDS."""
    path = str(tmp_path / "none.sock")
    pool = configure("http://llm.test", UDS=path)
    with pytest.raises(Exception, match=f"no connection to http://llm.test at {path}: No such file"):
        await pool.arequest("GET", "/x")


# What an engine cannot do


@pytest.mark.kinds(["native-http1"])
def test_whatever_an_engine_cannot_do_is_in_the_table():
    """The checks and the documentation say the same."""
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    for engine, settings in UNSUPPORTED.items():
        for key in settings:
            assert f"`{key}`" in page, (engine, key)


async def test_the_pool_is_as_it_says(server, configure):
    """``stats`` count the same things on every engine."""
    pool = configure(server)
    await pool.arequest("GET", "/x")
    await until(lambda: pool.stats().idle == 1)
    stats = pool.stats()
    assert (stats.connections, stats.in_use, stats.dialing, stats.requests) == (1, 0, 0, 1)
