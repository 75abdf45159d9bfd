"""Proxies to which the connection uses TLS, and SOCKS proxies, on each engine."""

from __future__ import annotations

import pytest

from llm_pool.engine.dialer.tunnel import CANNOT_FORCE_CLOSE
from llm_pool.exceptions import ProxyFailed, TLSFailed
from testbed.behaviours import json_reply
from tests.backends.conftest import HTTP1, KINDS
from tests.backends.servers import answer

NATIVE = [kind for kind in KINDS if kind.startswith("native")]


@pytest.fixture
def secure_proxy(serve_proxy, certificates):
    """``secure_proxy(names=...)``: an HTTP proxy to which connections use TLS."""
    return lambda **options: serve_proxy(tls=certificates.good, **options)


async def test_a_tunnel_within_tls(serve, play, secure_proxy, configure, certificates):
    """Scenario 50: PROXY with https://; both certificates are checked by the settings in TLS."""
    server = serve(play(answer), tls=certificates.good)
    proxy = secure_proxy(credentials="user:secret", names={"llm.test:443": ("127.0.0.1", server.port)})
    tls = {"ca_file": certificates.ca_file}
    pool = configure("https://llm.test", PROXY=proxy.url_with("user:secret"), TLS=tls)
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert (proxy.tunnels, proxy.handshakes) == (["llm.test:443"], 1)
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP1)
async def test_a_proxy_within_tls_forwards_http(serve, secure_proxy, configure, certificates):
    """Scenario 50: in absolute form, with the credentials in each request."""
    server = serve(json_reply())
    proxy = secure_proxy(credentials="user:secret")
    proxy.names["llm.test"] = proxy.names["llm.test:80"] = ("127.0.0.1", server.port)
    tls = {"ca_file": certificates.ca_file}
    pool = configure("http://llm.test", PROXY=proxy.url_with("user:secret"), TLS=tls)
    for _ in range(2):
        assert (await pool.arequest("GET", "/x")).status_code == 200
    assert [url.replace(":80/", "/") for url in proxy.forwarded] == ["http://llm.test/v1/x"] * 2
    assert proxy.handshakes == 1


async def test_the_certificate_of_a_proxy_is_checked(serve_proxy, configure, certificates):
    """Scenario 50: the error names the proxy, which gets no request."""
    proxy = serve_proxy(tls=certificates.unknown_authority)
    pool = configure("https://llm.test", PROXY=proxy.url, TLS={"ca_file": certificates.ca_file})
    message = rf"^no TLS connection to the proxy {proxy.authority}: its certificate was refused: "
    with pytest.raises(ProxyFailed, match=message):
        await pool.arequest("GET", "/x")
    assert proxy.requests == []


# On these Pythons aiohttp raises another error: asyncio loses the one about the certificate.
@pytest.mark.kinds([kind for kind in KINDS if not (kind == "aiohttp" and CANNOT_FORCE_CLOSE)])
async def test_the_certificate_of_the_server_is_checked_within_tls(
    serve, play, secure_proxy, configure, certificates
):
    """Scenarios 49 and 50: the proxy cannot pose as the provider."""
    server = serve(play(answer), tls=certificates.unknown_authority)
    proxy = secure_proxy(names={"llm.test:443": ("127.0.0.1", server.port)})
    pool = configure("https://llm.test", PROXY=proxy.url, TLS={"ca_file": certificates.ca_file})
    with pytest.raises(TLSFailed, match=r"^no TLS connection to https://llm\.test: its certificate"):
        await pool.arequest("GET", "/x")
    assert server.requests == []


@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_socks_proxy_is_used_or_refused(
    kind, serve, play, serve_socks, configure, certificates, monkeypatch, by
):
    """Scenario 50: an engine without SOCKS says so; it does not go around the proxy."""
    server = serve(play(answer), tls=certificates.good)
    proxy = serve_socks(names={"llm.test:443": ("127.0.0.1", server.port)})
    if by == "environment":
        monkeypatch.setenv("ALL_PROXY", proxy.url_with())
    pool = configure(
        "https://llm.test",
        PROXY=proxy.url_with() if by == "setting" else None,
        TLS={"ca_file": certificates.ca_file},
    )
    if kind in NATIVE:
        assert (await pool.arequest("GET", "/x")).status_code == 200
        assert proxy.tunnels == ["llm.test:443"]
    else:
        with pytest.raises(ProxyFailed, match=r"^only the engine 'native' supports a SOCKS proxy such as "):
            await pool.arequest("GET", "/x")
        assert (proxy.connections_accepted, server.connections_accepted) == (0, 0)
