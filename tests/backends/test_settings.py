"""Each setting in the table of docs/engines.md takes effect on each engine that supports it."""

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
from tests.fixtures.callers import in_thread, until
from tests.fixtures.internals import set_excess_linger

WITH_DNS_CACHE = [kind for kind in KINDS if not kind.startswith("httpcore")]


async def call_at_once(pool, server, count):
    """Make ``count`` calls at the same time, each on its own connection."""
    server.gate("go").shut()
    before = len(server.requests)
    async with asyncio.TaskGroup() as calls:
        for _ in range(count):
            calls.create_task(pool.arequest("GET", "/x"))
        await server.await_requests(before + count)
        server.gate("go").open()


# LIMITS


async def test_max_keepalive_connections_bounds_idle_connections(serve, play, configure, monkeypatch):
    set_excess_linger(monkeypatch, 0.1)
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 5, "max_keepalive_connections": 2})
    await call_at_once(pool, server, 5)
    await server.await_until(lambda s: s.connections_open == 2)
    assert pool.stats().idle == 2


async def test_an_idle_connection_expires(server, configure):
    """keepalive_expiry; in aiohttp keepalive_timeout."""
    pool = configure(server, LIMITS={"keepalive_expiry": 0.1})
    await pool.arequest("GET", "/x")
    await server.await_until(lambda s: s.connections_open == 0)
    assert pool.stats().closed == {"expired": 1}


async def test_an_idle_connection_stays_open_without_an_expiry(server, configure):
    """keepalive_expiry None."""
    pool = configure(server, LIMITS={"keepalive_expiry": None, "max_lifetime": None})
    await pool.arequest("GET", "/x")
    await asyncio.sleep(0.3)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 1


async def test_a_connection_is_replaced_after_max_lifetime(server, configure):
    pool = configure(server, LIMITS={"max_lifetime": 0.2})
    await pool.arequest("GET", "/x")
    await server.await_until(lambda s: s.connections_open == 0)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 2


@pytest.mark.kinds([kind for kind in KINDS if kind.startswith("native")])
async def test_prewarming_opens_min_connections(server, configure):
    pool = configure(server, LIMITS={"min_connections": 2})
    await pool.aprewarm()
    await server.await_until(lambda s: s.connections_open == 2)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 2


@pytest.mark.kinds([kind for kind in KINDS if not kind.startswith("native")])
async def test_an_engine_that_cannot_prewarm_warns(server, configure):
    """min_connections: a system check warns, and the stats count no connections."""
    pool = configure(server, LIMITS={"min_connections": 2})
    assert [message.id for message in check_settings()] == ["llm_pool.W004"]
    await pool.aprewarm()
    assert pool.stats().connections == 0
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert pool.stats().connections == 1


# HEADERS, QUERY


@pytest.mark.parametrize("call", ["complete", "request"])
def test_headers_and_query_are_sent(serve, play, configure, call):
    """HEADERS and QUERY, both directly and through httpx."""
    server = serve(play(answer))
    pool = configure(server, HEADERS={"X-Team": "blue"}, QUERY={"a": "ä/%"})
    if call == "request":
        pool.request("GET", "/x")
    else:
        with pytest.raises(InvalidResponse):  # the response is not a completion
            pool.complete("hello")
    assert server.requests[0].target.endswith("?a=%C3%A4%2F%25")
    assert server.requests[0].headers["x-team"] == "blue"
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


# DNS


@pytest.mark.parametrize(("ttl", "queries"), [(300.0, 1), (0.0, 2)])
@pytest.mark.kinds(WITH_DNS_CACHE)
async def test_addresses_are_cached_for_dns_ttl(serve, play, configure, fake_dns, ttl, queries):
    """DNS.ttl; in aiohttp ttl_dns_cache, and use_dns_cache=False for 0."""
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
async def test_failed_lookups_are_cached_for_dns_negative_ttl(configure, fake_dns):
    pool = configure("http://unknown.test:1", DNS={"negative_ttl": 60.0})
    for _ in range(2):
        with pytest.raises(Exception, match="has no address"):
            await pool.arequest("GET", "/x")
        await asyncio.sleep(0.3)  # longer than the pool's pause after a failed dial
    assert fake_dns.queries == ["unknown.test"]


@pytest.mark.kinds(["httpcore-http1"])
async def test_an_engine_without_a_dns_cache_warns(serve, configure, fake_dns):
    """DNS.ttl under httpcore: a system check warns, and each connection queries the name."""
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
async def test_aiodns_resolves_names(serve, play, configure, name_server):
    """DNS.resolver; in aiohttp AsyncResolver. The answers are cached too."""
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
async def test_an_engine_without_aiodns_warns(serve, configure, fake_dns, name_server):
    """DNS.resolver under httpcore: a system check warns, and the system resolves the names."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server = serve(json_reply())
    pool = configure(f"http://llm.test:{server.port}", DNS={"resolver": "aiodns"})
    assert "llm_pool.W004" in [message.id for message in check_settings()]
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert (fake_dns.queries, name_server.queries) == (["llm.test"], [])
    await in_thread(portal.stop)


# TLS


async def test_ca_file_names_the_trusted_authority(serve, play, configure, certificates):
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    assert (await pool.arequest("GET", "/x")).status_code == 200
    untrusting = configure(server)
    with pytest.raises(TLSFailed, match="certificate was refused"):
        await untrusting.arequest("GET", "/x")


async def test_certificates_are_not_verified_if_verify_is_false(serve, play, configure, certificates):
    server = serve(play(answer), tls=certificates.self_signed)
    assert (await configure(server, TLS={"verify": False}).arequest("GET", "/x")).status_code == 200


async def test_the_client_certificate_is_sent(serve, play, configure, certificates):
    server = serve(play(answer), tls=certificates.requires_client_cert)
    pool = configure(server, TLS={"ca_file": certificates.ca_file, "client_cert": certificates.client_cert})
    assert (await pool.arequest("GET", "/x")).status_code == 200


async def test_a_context_replaces_the_other_tls_settings(serve, play, configure, certificates):
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"context": certificates.client_context()})
    assert (await pool.arequest("GET", "/x")).status_code == 200


async def test_the_error_of_a_missing_ca_file_names_it(serve, play, configure, certificates):
    server = serve(play(answer), tls=certificates.good)
    pool = configure(server, TLS={"ca_file": "/no/such.pem"})
    with pytest.raises(TLSFailed, match=r"the TLS setting ca_file \(/no/such.pem\) cannot be used"):
        await pool.arequest("GET", "/x")


# PROXY


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_proxy_forwards_http(serve, serve_proxy, configure, monkeypatch, by):
    """PROXY, or HTTP_PROXY if it is None; with credentials."""
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
async def test_a_proxy_tunnels_https(serve, play, serve_proxy, configure, certificates, monkeypatch, by):
    """Scenario 50: PROXY, or HTTPS_PROXY if it is None; the TLS handshake is with the server."""
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


async def test_no_proxy_disables_the_proxy(serve, play, serve_proxy, configure, monkeypatch, fake_dns):
    """Scenario 50: NO_PROXY."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    server, proxy = serve(play(answer)), serve_proxy()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "llm.test")
    pool = configure(f"http://llm.test:{server.port}", PROXY=None)
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert proxy.connections_accepted == 0
    await in_thread(portal.stop)


@pytest.mark.parametrize("refusal", [{"refuse": 403}, {"credentials": "user:other"}])
async def test_the_error_of_a_refused_tunnel_has_the_proxys_answer(
    serve_proxy, configure, certificates, refusal
):
    """Scenario 50: but not the password."""
    proxy = serve_proxy(**refusal)
    pool = configure(
        "https://llm.test", PROXY=proxy.url_with("user:secret"), TLS={"ca_file": certificates.ca_file}
    )
    status = refusal.get("refuse", 407)
    with pytest.raises(ProxyFailed, match=rf"opened no tunnel to https://llm.test: .*{status}") as caught:
        await pool.arequest("GET", "/x")
    assert "secret" not in str(caught.value)


async def close_at_once(conn):
    await conn.close()


async def answer_with_smtp(conn):
    await conn.send(b"220 mail.test ESMTP\r\n\r\n")
    await conn.close()


@pytest.mark.parametrize(
    ("script", "why"), [(close_at_once, "it closed the connection"), (answer_with_smtp, "it answered ")]
)
async def test_a_server_that_is_not_a_proxy_is_a_proxy_failure(
    serve_proxy, configure, certificates, script, why
):
    """Scenario 50: it closes the connection, or uses another protocol."""
    proxy = serve_proxy(before_tunnel=script)
    pool = configure("https://llm.test", PROXY=proxy.url, TLS={"ca_file": certificates.ca_file})
    with pytest.raises(ProxyFailed, match=f"opened no tunnel to https://llm.test: {why}"):
        await pool.arequest("GET", "/x")
    assert pool.stats().dial_failures == {"ProxyFailed": 1}


async def test_the_connect_timeout_includes_the_tunnel(serve_proxy, configure):
    """TIMEOUTS.connect: the proxy never answers."""
    proxy = serve_proxy(stall=True)
    pool = configure("https://llm.test", PROXY=proxy.url, TIMEOUTS={"connect": 0.5, "total": 10.0})
    with pytest.raises(ConnectTimeout, match=r"no connection to https://llm.test within 0\.5 s"):
        await pool.arequest("GET", "/x")


# UDS


async def test_calls_over_a_unix_socket(serve, play, configure, tmp_path):
    """UDS: the path replaces host and port; the connection is reused."""
    path = str(tmp_path / "llm.sock")
    server = serve(play(answer), uds=path)
    pool = configure("http://llm.test", UDS=path)
    for _ in range(3):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert server.connections_accepted == 1
    headers = server.requests[0].headers
    assert (headers.get("host") or headers[":authority"]) == "llm.test"


async def test_tls_over_a_unix_socket(kind, serve, play, configure, certificates, tmp_path):
    """UDS: not with aiohttp, which would send unencrypted; the call fails instead."""
    path = str(tmp_path / "llm.sock")
    server = serve(play(answer), uds=path, tls=certificates.good)
    pool = configure("https://llm.test", UDS=path, TLS={"ca_file": certificates.ca_file})
    if kind != "aiohttp":
        assert (await pool.arequest("GET", "/x")).status_code == 200
        return
    assert "llm_pool.E007" in [message.id for message in check_settings()]
    with pytest.raises(TLSFailed, match="aiohttp supports none over a Unix domain socket"):
        await pool.arequest("GET", "/x")
    assert server.connections_accepted == 0


async def test_the_error_of_a_missing_unix_socket_names_it(configure, tmp_path):
    path = str(tmp_path / "none.sock")
    pool = configure("http://llm.test", UDS=path)
    with pytest.raises(Exception, match=f"no connection to http://llm.test at {path}: No such file"):
        await pool.arequest("GET", "/x")


# What an engine does not support


@pytest.mark.kinds(["native-http1"])
def test_each_unsupported_setting_is_in_the_table():
    """The system checks agree with docs/engines.md."""
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    for engine, settings in UNSUPPORTED.items():
        for key in settings:
            assert f"`{key}`" in page, (engine, key)


async def test_stats_count_connections_and_requests(server, configure):
    pool = configure(server)
    await pool.arequest("GET", "/x")
    await until(lambda: pool.stats().idle == 1)
    stats = pool.stats()
    assert (stats.connections, stats.in_use, stats.dialing, stats.requests) == (1, 0, 0, 1)
