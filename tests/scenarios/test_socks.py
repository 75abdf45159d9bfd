"""SOCKS proxies: names, addresses, credentials, and servers that are no SOCKS proxy."""

from __future__ import annotations

import pytest

from llm_pool.engine.dialer import proxy as proxy_module
from llm_pool.engine.dialer.proxy import parse_proxy
from llm_pool.exceptions import ConnectTimeout, ProxyFailed
from testbed import http2
from testbed.behaviours import close, hold, json_reply, raw, reset, steps
from tests.fixtures.engine import request_to
from tests.fixtures.internals import sockets_of
from tests.fixtures.proxies import SECRET, environment, names, secure, to_llm_test, trust
from tests.fixtures.reports import reported

__all__ = ["environment", "secure", "trust"]

SOCKS_URL = f"socks5://{SECRET}@proxy.test:1080"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks", "SOCKS5"])
@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_https_goes_through_a_socks_proxy(
    serve_socks, secure, engine_pool, trust, environment, fake_dns, scheme, by, each_loop
):
    """Scenario 50: the proxy looks up the name, the pool checks the certificate."""
    proxy = serve_socks(names=names(secure))
    environment("all_proxy", url := proxy.url_with(scheme=scheme))
    pool = engine_pool(proxy=url if by == "setting" else None, tls=trust)
    for _ in range(3):
        assert (await pool.fetch(to_llm_test(secure))).status == 200
    assert proxy.tunnels == [f"llm.test:{secure.port}"]
    assert fake_dns.queries == []


async def test_http_goes_through_a_socks_proxy_as_to_the_server(serve_socks, serve, engine_pool, each_loop):
    """Scenario 50: in origin form, and with HTTP/2 by prior knowledge too."""
    server, server2 = serve(json_reply()), serve(http2.http2(http2.reply(200, b"{}")))
    proxy = serve_socks(names={**names(server), **names(server2)}, credentials="user:s3cr@t")
    url = proxy.url_with(SECRET)
    assert (await engine_pool(proxy=url).fetch(to_llm_test(server))).status == 200
    assert server.requests[0].target == "/v1/chat/completions"
    assert b"roxy" not in server.requests[0].head
    pool = engine_pool(proxy=url, http2="prior-knowledge")
    assert (await pool.fetch(to_llm_test(server2))).status == 200


async def test_an_address_goes_to_a_socks_proxy_as_an_address(serve_socks, serve, engine_pool):
    """Scenario 50: RFC 1928, section 5."""
    server, server6 = serve(json_reply()), serve(json_reply(), host="::1")
    proxy = serve_socks()
    pool = engine_pool(proxy=proxy.url_with())
    for each in (server, server6):
        assert (await pool.fetch(request_to(each))).status == 200
    assert proxy.tunnels == [server.authority, server6.authority]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "it answered 'No acceptable authentication methods were offered'"),
        ("user:wrong", "it answered 'Username and password authentication failure'"),
    ],
)
async def test_a_socks_proxy_that_refuses_the_credentials_is_named(
    serve_socks, secure, engine_pool, trust, given, why
):
    """Scenario 50: and no report shows them."""
    proxy = serve_socks(credentials="user:s3cr@t")
    pool = engine_pool(proxy=proxy.url_with(given), tls=trust)
    with pytest.raises(ProxyFailed) as caught:
        await pool.fetch(to_llm_test(secure))
    tunnel = f"the proxy {proxy.authority} opened no tunnel to https://llm.test:{secure.port}"
    assert str(caught.value) == f"{tunnel}: {why}"
    assert "wrong" not in reported(caught.value)
    assert sockets_of(pool) == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (steps(raw(), close), "it answered 'Connection closed unexpectedly'"),
        (close, "it answered 'Connection closed unexpectedly'|Connection reset by peer|Broken pipe"),
        (steps(lambda conn: conn.read_some(), reset), "Connection reset by peer"),
        (steps(lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hold), "it answered '.+'"),
    ],
    ids=["closes", "closes at once", "resets", "speaks HTTP"],
)
async def test_a_server_that_is_no_socks_proxy_is_named(
    serve, secure, engine_pool, trust, script, why, each_loop
):
    """Scenario 50: ProxyFailed at once, and no socket is left."""
    server = serve(script)
    pool = engine_pool(proxy=f"socks5://{SECRET}@{server.authority}", tls=trust)
    if why.endswith("unexpectedly'"):
        server.script = steps(lambda conn: conn.read_some(), close)
    with pytest.raises(ProxyFailed, match=rf"opened no tunnel to https://llm.test:\d+: ({why})$") as caught:
        await pool.fetch(to_llm_test(secure))
    assert "s3cr" not in reported(caught.value)
    assert sockets_of(pool) == []
    await server.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize(("code", "why"), [(5, "Connection refused by destination host"), (2, "not allowed")])
async def test_a_socks_proxy_that_refuses_is_named_with_its_reply(
    serve_socks, secure, engine_pool, trust, code, why
):
    """Scenario 50: RFC 1928, section 6."""
    pool = engine_pool(proxy=serve_socks(reply=code).url_with(), tls=trust)
    with pytest.raises(ProxyFailed, match=f"it answered '.*{why}"):
        await pool.fetch(to_llm_test(secure))


async def test_a_socks_proxy_that_stalls_ends_at_the_connect_timeout(
    serve_socks, secure, engine_pool, trust, each_loop
):
    """Scenario 50: also if it is cancelled, no socket is left."""
    proxy = serve_socks(stall=True)
    pool = engine_pool(proxy=proxy.url_with(), tls=trust, connect=0.3)
    request = to_llm_test(secure)
    request.timeouts = pool.config.timeouts
    with pytest.raises(ConnectTimeout):
        await pool.fetch(request)
    assert sockets_of(pool) == []
    await proxy.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("login", ["user", "user:", ":s3cret", "user:%C3%BC-s3cret", f"user:{'s3cret' * 50}"])
def test_a_socks_login_that_cannot_be_sent_is_a_clear_error(login):
    """Scenario 50: RFC 1929 has 1 to 255 bytes for each; the error does not show them."""
    with pytest.raises(ProxyFailed, match="both a user and a password, each of 1 to 255 ASCII") as caught:
        parse_proxy(f"socks5://{login}@proxy.test:1080")
    assert "s3cret" not in str(caught.value)


def test_without_its_package_a_socks_proxy_is_refused_with_the_command_to_install_it(monkeypatch):
    """Scenario 50: python-socks is an extra."""
    monkeypatch.setattr(proxy_module, "HAS_SOCKS", False)
    with pytest.raises(ProxyFailed, match=r'pip install "django-llm-pool\[socks\]"$'):
        parse_proxy(SOCKS_URL)


def test_the_login_is_in_no_repr():
    """Scenario 50: neither as it was given, nor decoded."""
    assert "s3cr" not in f"{parse_proxy(SOCKS_URL)!r} {parse_proxy(SOCKS_URL)}"
