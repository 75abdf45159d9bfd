"""HTTP proxies: tunnels for https, absolute form for http, and the proxy from the environment."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.engine.config import Origin, PoolConfig
from llm_pool.engine.dialer.proxy import parse_proxy, proxy_for
from llm_pool.exceptions import ConnectFailed, ConnectTimeout, DNSFailed, PoolClosed, ProxyFailed, TLSFailed
from testbed.behaviours import close, garbage, hold, json_reply, raw, reset, steps
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import sockets_of
from tests.fixtures.proxies import SECRET, environment, names, secure, to_llm_test, trust
from tests.fixtures.reports import reported

__all__ = ["environment", "secure", "trust"]

# Tunnels.


async def test_https_goes_through_a_tunnel_and_the_tunnel_is_reused(
    serve_proxy, secure, engine_pool, trust, fake_dns, each_loop
):
    """Scenario 50: by CONNECT; the proxy looks up the name, the pool checks the certificate."""
    proxy = serve_proxy(names=names(secure))
    pool = engine_pool(proxy=proxy.url, tls=trust)
    for _ in range(3):
        assert (await pool.fetch(to_llm_test(secure))).status == 200
    authority = f"llm.test:{secure.port}"
    assert proxy.tunnels == [authority]
    (connect,) = proxy.requests
    assert connect.head == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    assert (secure.connections_accepted, len(secure.requests)) == (1, 3)
    assert fake_dns.queries == []


async def test_credentials_are_sent_to_the_proxy_only(serve_proxy, secure, engine_pool, trust, each_loop):
    """Scenario 50: percent-decoded, as Basic."""
    proxy = serve_proxy(names=names(secure), credentials="user:s3cr@t")
    pool = engine_pool(proxy=proxy.url_with(SECRET), tls=trust)
    assert (await pool.fetch(to_llm_test(secure))).status == 200
    assert b"roxy" not in secure.requests[0].head


@pytest.mark.parametrize("credentials", ["", "user:wrong@", "user@"], ids=["none", "wrong", "no password"])
async def test_a_proxy_that_refuses_the_credentials_is_named(
    serve_proxy, secure, engine_pool, trust, credentials
):
    """Scenario 50: the 407 comes from the proxy, not from the provider."""
    proxy = serve_proxy(names=names(secure), credentials="user:s3cr@t")
    pool = engine_pool(proxy=proxy.url.replace("://", f"://{credentials}"), tls=trust)
    with pytest.raises(ProxyFailed) as caught:
        await pool.fetch(to_llm_test(secure))
    assert str(caught.value) == (
        f"the proxy {proxy.authority} opened no tunnel to https://llm.test:{secure.port}: "
        "it answered 'HTTP/1.1 407 Proxy Authentication Required'"
    )
    assert secure.connections_accepted == 0
    assert sockets_of(pool) == []


async def test_an_ipv6_origin_is_asked_for_in_brackets(serve_proxy, serve, certificates, engine_pool, trust):
    """Scenario 50: RFC 3986, section 3.2.2."""
    server = serve(json_reply(), tls=certificates.good, host="::1")
    proxy = serve_proxy()
    assert (await engine_pool(proxy=proxy.url, tls=trust).fetch(request_to(server))).status == 200
    assert proxy.tunnels == [f"[::1]:{server.port}"]


async def test_a_proxy_may_have_an_ipv6_address_or_a_name(serve_proxy, secure, engine_pool, trust, fake_dns):
    """Scenario 50: each pool looks up the proxy's name once."""
    by_address = serve_proxy(names=names(secure), host="::1")
    by_name = serve_proxy(names=names(secure))
    fake_dns.names["proxy.test"] = "127.0.0.1"
    for url in (by_address.url, f"http://proxy.test:{by_name.port}", f"proxy.test:{by_name.port}"):
        assert (await engine_pool(proxy=url, tls=trust).fetch(to_llm_test(secure))).status == 200
    assert (len(by_address.tunnels), len(by_name.tunnels)) == (1, 2)
    assert fake_dns.queries == ["proxy.test"] * 2


async def test_certificates_are_checked_through_the_tunnel(
    serve_proxy, serve, certificates, engine_pool, trust
):
    """Scenario 49 and 50: the proxy cannot pose as the provider."""
    server = serve(json_reply(), tls=certificates.wrong_name)
    proxy = serve_proxy(names=names(server))
    with pytest.raises(TLSFailed, match=r"^no TLS connection to https://llm.test:\d+: .*'llm.test'"):
        await engine_pool(proxy=proxy.url, tls=trust).fetch(to_llm_test(server))
    assert server.requests == []


@pytest.mark.parametrize("status", [403, 500, 502, 302, 101])
async def test_a_proxy_that_refuses_is_named_with_its_answer(serve_proxy, secure, engine_pool, trust, status):
    """Scenario 50: only a 2xx opens a tunnel."""
    proxy = serve_proxy(refuse=status)
    pool = engine_pool(proxy=proxy.url, tls=trust)
    with pytest.raises(ProxyFailed, match=rf"opened no tunnel to .*: it answered 'HTTP/1.1 {status}"):
        await pool.fetch(to_llm_test(secure))
    assert sockets_of(pool) == []


async def answer_and_hold(conn):
    await conn.read_request()
    await conn.send(b"\x16\x03\x01 no HTTP")
    await conn.hold()


async def endless_head(conn):
    await conn.read_request()
    await conn.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await conn.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (steps(raw(), close), "it closed the connection"),
        (steps(raw(), reset), "Connection reset by peer"),
        (garbage, r"it answered '\\x16"),
        (answer_and_hold, r"it answered '\\x16"),
        (steps(raw(b"HTTP/1.1 200 OK\r\nServer: x\r\n"), close), "it answered 'HTTP/1.1 200 OK'"),
        (steps(raw(b"HTTP/1.1 200 OK\r\n\r\nHello"), hold), "it answered 'HTTP/1.1 200 OK'"),
        (steps(raw(b"HTTP/1.1 2000 OK\r\n\r\n"), hold), "it answered 'HTTP/1.1 2000 OK'"),
        (steps(raw(b"HTTP/2 200\r\n\r\n"), hold), "it answered 'HTTP/2 200'"),
        (steps(raw(b"HTTP/1.1 " + b"5" * 1000 + b"\r\n\r\n"), hold), "it answered 'HTTP/1.1 5{191}'$"),
        (endless_head, "it answered 'HTTP/1.1 200 OK'"),
    ],
    ids=[
        "closes", "resets", "garbage", "garbage, then silence", "cut in the head",
        "speaks out of turn", "no status", "another version", "a long line", "a head without end",
    ],
)  # fmt: skip
async def test_a_proxy_that_misbehaves_is_a_clear_error(serve, secure, engine_pool, trust, script, reason):
    """Scenario 50: ProxyFailed at once, not at the connect timeout, and no socket is left."""
    proxy = serve(script)
    pool = engine_pool(proxy=proxy.url, tls=trust)
    message = rf"^the proxy {proxy.authority} opened no tunnel to https://llm.test:\d+: {reason}"
    with pytest.raises(ProxyFailed, match=message):
        await pool.fetch(to_llm_test(secure))
    assert sockets_of(pool) == []
    await proxy.await_until(lambda s: s.connections_open == 0)


async def test_a_proxy_that_stalls_ends_at_the_connect_timeout(
    serve_proxy, secure, engine_pool, trust, each_loop
):
    """Scenario 50: CONNECT is part of the dial."""
    proxy = serve_proxy(stall=True)
    pool = engine_pool(proxy=proxy.url_with(SECRET), tls=trust)
    request = to_llm_test(secure)
    request.timeouts = request.timeouts.__class__(connect=0.1)
    with pytest.raises(ConnectTimeout, match=r"^no connection to https://llm.test:\d+ within 0.1 s$"):
        await pool.fetch(request)
    assert sockets_of(pool) == []
    await proxy.await_until(lambda s: s.connections_open == 0)


async def test_closing_the_pool_while_a_tunnel_is_asked_for_closes_the_socket(
    serve_proxy, secure, engine_pool, trust, each_loop
):
    """Scenario 18: the dial is cancelled in CONNECT."""
    proxy = serve_proxy(stall=True)
    pool = engine_pool(proxy=proxy.url, tls=trust)
    call = asyncio.create_task(pool.fetch(to_llm_test(secure)))
    await proxy.await_requests()
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await call
    assert sockets_of(pool) == []
    await proxy.await_until(lambda s: s.connections_open == 0)


async def test_a_tunnel_whose_caller_has_left_feeds_the_pool(
    serve_proxy, secure, engine_pool, trust, each_loop
):
    """Scenario 18: the caller is cancelled in CONNECT; the connection serves the next call."""
    proxy = serve_proxy(names=names(secure), before_tunnel=lambda conn: conn.wait_for("go"))
    pool = engine_pool(proxy=proxy.url, tls=trust)
    call = asyncio.create_task(pool.fetch(to_llm_test(secure)))
    await proxy.gate("go").await_reached()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    proxy.gate("go").open()
    await until_pool(pool, lambda: pool.stats().idle == 1)
    assert (await pool.fetch(to_llm_test(secure))).status == 200
    assert len(proxy.tunnels) == 1


async def test_a_proxy_that_is_not_there_is_named(serve_proxy, secure, engine_pool, trust, each_loop):
    """Scenario 50: the proxy refuses the connection, not the provider."""
    proxy = serve_proxy()
    proxy.refuse()
    pool = engine_pool(proxy=proxy.url_with(SECRET), tls=trust)
    with pytest.raises(ConnectFailed) as caught:
        await pool.fetch(to_llm_test(secure))
    assert str(caught.value) == (
        f"no connection to https://llm.test:{secure.port} through the proxy {proxy.authority}: "
        "Connection refused"
    )


async def test_a_proxy_without_an_address_is_named(secure, engine_pool, trust, fake_dns):
    """Scenario 50: the error names the proxy's host, which has no address."""
    with pytest.raises(DNSFailed, match=r"^the name 'proxy.test' has no address: "):
        await engine_pool(proxy="http://proxy.test:3128", tls=trust).fetch(to_llm_test(secure))


# Plain http.


async def test_http_goes_to_the_proxy_in_absolute_form(serve_proxy, serve, engine_pool, fake_dns, each_loop):
    """Scenario 50: RFC 9112, section 3.2.2; the credentials go with each request."""
    server = serve(json_reply())
    proxy = serve_proxy(names=names(server), credentials="user:s3cr@t")
    pool = engine_pool(proxy=proxy.url_with(SECRET))
    for _ in range(2):
        assert (await pool.fetch(to_llm_test(server))).status == 200
    assert proxy.forwarded == [f"http://llm.test:{server.port}/v1/chat/completions"] * 2
    assert proxy.connections_accepted == 1
    assert b"roxy" not in server.requests[0].head
    assert fake_dns.queries == []


@pytest.mark.parametrize("host", ["llm.test\r\nX: y", "llm .test", "bücher.test", "llm\0.test"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_invalid_host_does_not_reach_the_proxy(serve_proxy, serve, engine_pool, scheme, host):
    """Scenario 50 and 40: nothing can be smuggled into CONNECT or the request line."""
    proxy = serve_proxy()
    request = request_to(serve(json_reply()))
    request.origin = Origin(scheme, host, 80)
    with pytest.raises(DNSFailed, match="is not a valid host name"):
        await engine_pool(proxy=proxy.url).fetch(request)
    assert proxy.connections_accepted == 0


# Which proxy.


BAD = {
    "another kind": f"socks4://{SECRET}@proxy.test:1080",
    "a port that is a word": f"http://{SECRET}@proxy.test:http",
    "a port out of range": f"http://{SECRET}@proxy.test:70000",
    "a password with a slash": "http://user:s3cr/t@proxy.test:1",
    "a password with a hash": "http://user:s3cr#t@proxy.test:1",
    "no host": f"http://{SECRET}@",
    "a host that is none": f"http://{SECRET}@pro xy:1",
    "half an address": f"http://{SECRET}@[::1",
}


@pytest.mark.parametrize("url", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_proxy_url_of_another_form_is_a_clear_error(secure, engine_pool, trust, environment, url, by):
    """Scenario 50: the first call fails, and the error does not contain the password."""
    environment("https_proxy", url)
    pool = engine_pool(proxy=url if by == "setting" else None, tls=trust, max_connections=1)
    for _ in range(2):
        with pytest.raises(ProxyFailed, match=r"not of the form http://host:port, https:") as caught:
            await pool.fetch(to_llm_test(secure))
        assert "s3cr" not in f"{caught.value!r} {caught.value.__cause__!r} {pool.stats()}"
        assert ("https_proxy" in str(caught.value)) is (by == "environment")


@pytest.mark.parametrize("end", ["repeats them", "resets"])
async def test_the_credentials_are_in_no_report(serve, secure, engine_pool, trust, end):
    """Scenario 50: neither if the proxy's response repeats them, nor in the frames of the error."""

    async def answer(conn):
        request = await conn.read_request()
        if end == "resets":
            await conn.reset()
        else:
            await conn.send(f"HTTP/1.1 407 {request.headers['proxy-authorization']}\r\n\r\n".encode())

    proxy = serve(answer)
    pool = engine_pool(proxy=f"http://{SECRET}@{proxy.host}:{proxy.port}", tls=trust)
    with pytest.raises(ProxyFailed) as caught:
        await pool.fetch(to_llm_test(secure))
    for secret in ("s3cr", "dXNlcjpzM2NyQHQ="):
        assert secret not in reported(caught.value)
        assert secret not in f"{pool.stats()}"


async def test_the_password_is_in_no_repr(serve_proxy, secure, engine_pool, trust):
    """Scenario 50: of the proxy, the settings and the pool; nor in the error of a failed call."""
    proxy = serve_proxy(refuse=502)
    url = proxy.url_with(SECRET)
    pool = engine_pool(proxy=url, tls=trust)
    with pytest.raises(ProxyFailed) as caught:
        await pool.fetch(to_llm_test(secure))
    shown = [caught.value, pool, pool.stats(), pool.config, PoolConfig(proxy=url), parse_proxy(url)]
    for secret in ("s3cr", "dXNlcjpzM2NyQHQ="):
        assert secret not in f"{shown!r} {caught.value} {parse_proxy(url)}"


async def test_the_environment_names_a_proxy_for_each_scheme(
    serve_proxy, serve, secure, engine_pool, trust, environment
):
    """Scenario 50: if the pool has no proxy setting."""
    server = serve(json_reply())
    for_http, for_https = serve_proxy(names=names(server)), serve_proxy(names=names(secure))
    environment("HTTP_PROXY", for_http.url)
    environment("HTTPS_PROXY", for_https.url)
    pool = engine_pool(proxy=None, tls=trust)
    assert (await pool.fetch(to_llm_test(server))).status == 200
    assert (await pool.fetch(to_llm_test(secure))).status == 200
    assert (len(for_http.forwarded), len(for_https.tunnels)) == (1, 1)


async def test_what_no_proxy_exempts_goes_straight(
    serve_proxy, serve, engine_pool, fake_dns, environment, each_loop
):
    """Scenario 50: ``NO_PROXY`` is honoured."""
    server = serve(json_reply())
    proxy = serve_proxy(names=names(server))
    fake_dns.names["llm.test"] = "127.0.0.1"
    environment("http_proxy", proxy.url)
    environment("no_proxy", "other.test, llm.test")
    assert (await engine_pool(proxy=None).fetch(to_llm_test(server))).status == 200
    assert proxy.connections_accepted == 0
    environment("no_proxy", "other.test")
    assert (await engine_pool(proxy=None).fetch(to_llm_test(server))).status == 200
    assert len(proxy.forwarded) == 1


async def test_the_environments_proxy_is_not_used_for_loopback(serve_proxy, serve, engine_pool, environment):
    """Scenario 50: the proxy cannot reach a model on this machine."""
    server, server6 = serve(json_reply()), serve(json_reply(), host="::1")
    proxy = serve_proxy()
    environment("http_proxy", proxy.url)
    pool = engine_pool(proxy=None)
    for request in (request_to(server), request_to(server6), request_to(server, host="localhost")):
        assert (await pool.fetch(request)).status == 200
    assert proxy.connections_accepted == 0


PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("no_proxy", "exempt", "not_exempt"),
    [
        ("llm.test", ["llm.test", "LLM.test", "llm.test.", "a.b.llm.test"], ["xllm.test", "llm.test.org"]),
        (".llm.test", ["llm.test", "a.llm.test"], ["xllm.test"]),
        ("*.llm.test", ["llm.test", "a.llm.test"], ["xllm.test"]),
        ("LLM.Test.", ["llm.test"], ["test"]),
        ("a.test,b.test\tc.test , d.test", ["a.test", "b.test", "c.test", "d.test"], ["e.test"]),
        ("llm.test:8000", ["llm.test:8000"], ["llm.test", "llm.test:80"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "10.llm.test", "fd00::1"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4", "110.1.2.3"]),
        ("10.1.2.3:8000", ["10.1.2.3:8000"], ["10.1.2.3"]),
        ("fd00::/8", ["fd12::1"], ["fe80::1", "10.1.2.3"]),
        ("fd00::1", ["fd00::1", "fd00:0::1"], ["fd00::2"]),
        ("[fd00::1]", ["fd00::1"], ["fd00::2"]),
        ("[fd00::1]:8000", ["fd00::1|8000"], ["fd00::1"]),
        ("*", ["llm.test", "10.1.2.3", "fd00::1"], []),
        ("", [], ["llm.test", "10.1.2.3"]),
        (", ,", [], ["llm.test", "10.1.2.3"]),
        (".", [], ["llm.test"]),
        ("10.0.0.0/99,[,a:b:c/1", [], ["10.1.2.3", "llm.test"]),
    ],
)
def test_no_proxy_is_read_as_documented(environment, no_proxy, exempt, not_exempt):
    """Scenario 50: names with their subdomains, addresses, networks, ports, and "*"."""
    environment("http_proxy", PROXY)
    environment("no_proxy", no_proxy)
    assert [host for host in exempt if proxy_for(_origin(host), None) is not None] == []
    assert [host for host in not_exempt if proxy_for(_origin(host), None) is None] == []


def _origin(text):
    host, mark, port = text.partition("|")
    if not mark and text.count(":") == 1:
        host, _, port = text.partition(":")
    return Origin("http", host, int(port or 443))


def test_the_order_of_the_environment_variables(environment):
    """Scenario 50: lower case first, ``ALL_PROXY`` for schemes without a variable, and "" for no proxy."""
    origin, secure = Origin("http", "llm.test", 80), Origin("https", "llm.test", 443)
    assert proxy_for(origin, None) is None
    environment("ALL_PROXY", "http://all.test:1")
    assert str(proxy_for(origin, None)) == str(proxy_for(secure, None)) == "all.test:1"
    environment("HTTP_PROXY", "http://upper.test:2")
    assert (str(proxy_for(origin, None)), str(proxy_for(secure, None))) == ("upper.test:2", "all.test:1")
    environment("http_proxy", "lower.test:3")
    assert str(proxy_for(origin, None)) == "lower.test:3"
    environment("no_proxy", "*")
    assert proxy_for(origin, None) is None
    assert str(proxy_for(origin, "http://own.test")) == "own.test:80"
    assert proxy_for(origin, "") is None
