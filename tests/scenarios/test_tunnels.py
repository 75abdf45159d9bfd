"""What proxies answer to CONNECT, and proxies to which the connection uses TLS."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from hyperframe.frame import SettingsFrame

from llm_pool.engine.config import TLS
from llm_pool.engine.loops.portal import adopt_server_loop, release_server_loop
from llm_pool.exceptions import ConnectTimeout, ProxyFailed, TLSFailed
from testbed import http2
from testbed.behaviours import close, hold, json_reply, raw, reset, steps
from testbed.proxy import relay
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import entries_of, sockets_of, tls_of
from tests.fixtures.proxies import SECRET, environment, names, secure, to_llm_test, trust

__all__ = ["environment", "secure", "trust"]

# The response to CONNECT.


@pytest.fixture
def serve_tunnel(serve, secure):
    """``serve_tunnel(answer)``: a proxy that sends ``answer`` to CONNECT, and then relays to ``secure``."""

    def start(answer, *, by_bytes=False):
        async def tunnel(conn):
            await conn.read_request()
            for piece in [answer[i : i + 1] for i in range(len(answer))] if by_bytes else [answer]:
                await conn.send(piece)
            reader, writer = await asyncio.open_connection(secure.host, secure.port)
            try:
                await relay(conn, reader, writer)
            finally:
                writer.close()

        return serve(tunnel)

    return start


@pytest.mark.parametrize("by_bytes", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\n\n",
        b"HTTP/1.0 200 OK\nProxy-Agent: x\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 102 Processing\n\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 299 Yes\r\n\r\n",
    ],
    ids=["Content-Length", "bare LF", "bare LF and a header", "100 before 200", "two interim responses"],
)
async def test_a_tunnel_is_open_after_any_success(serve_tunnel, secure, engine_pool, trust, answer, by_bytes):
    """Scenario 50: after interim responses (RFC 9110, 15.2), and with bare LF (RFC 9112, 2.2)."""
    pool = engine_pool(proxy=serve_tunnel(answer, by_bytes=by_bytes).url, tls=trust)
    assert (await pool.fetch(to_llm_test(secure))).status == 200


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", "it closed the connection"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", "it answered 'HTTP/1.1 403 No'"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "it answered 'HTTP/1.1 101 Switching Protocols'"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, "it answered 'HTTP/1.1.*'"),
    ],
    ids=["nothing after 100", "403 after 100", "101", "100 without end"],
)
async def test_an_interim_response_opens_no_tunnel(serve, secure, engine_pool, trust, answer, why):
    """Scenario 50: the final response counts, and what is read before it is limited."""
    proxy = serve(steps(raw(answer), close))
    with pytest.raises(ProxyFailed, match=rf"opened no tunnel to https://llm.test:\d+: ({why})$"):
        await engine_pool(proxy=proxy.url, tls=trust).fetch(to_llm_test(secure))


@pytest.mark.parametrize(
    ("challenges", "hint"),
    [
        (["Digest realm=x"], "; it accepts only Digest, and the pool can only do Basic"),
        (["NTLM", "Negotiate"], "; it accepts only NTLM and Negotiate, and the pool can only do Basic"),
        (["Digest realm=x", "Basic realm=x"], ""),
        ([], ""),
    ],
)
async def test_a_proxy_without_basic_is_told_from_a_wrong_password(
    serve, secure, engine_pool, trust, challenges, hint
):
    """Scenario 50: one sentence says which schemes the proxy accepts."""
    lines = "".join(f"Proxy-Authenticate: {challenge}\r\n" for challenge in challenges)
    proxy = serve(steps(raw(f"HTTP/1.1 407 No\r\n{lines}\r\n".encode()), hold))
    with pytest.raises(ProxyFailed) as caught:
        await engine_pool(proxy=proxy.url, tls=trust).fetch(to_llm_test(secure))
    assert str(caught.value).endswith(f"it answered 'HTTP/1.1 407 No'{hint}")


# TLS to the proxy.


@pytest.fixture
def secure_proxy(serve_proxy, certificates):
    """``secure_proxy(names=...)``: an HTTP proxy to which connections use TLS."""
    return lambda **options: serve_proxy(tls=certificates.good, **options)


@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_https_goes_through_a_tunnel_within_tls(
    secure_proxy, secure, engine_pool, trust, environment, by, each_loop
):
    """Scenario 50: TLS in TLS; the credentials are sent to the proxy only."""
    proxy = secure_proxy(names=names(secure), credentials="user:s3cr@t")
    environment("https_proxy", url := proxy.url_with(SECRET))
    pool = engine_pool(proxy=url if by == "setting" else None, tls=trust)
    for _ in range(3):
        assert (await pool.fetch(to_llm_test(secure))).status == 200
    assert (proxy.tunnels, proxy.handshakes) == ([f"llm.test:{secure.port}"], 1)
    assert b"roxy" not in secure.requests[0].head
    await pool.aclose()
    assert sockets_of(pool) == []


def test_a_tunnel_within_tls_under_uvloop(secure_proxy, secure, engine_pool, trust):
    """Scenario 50: uvloop has a TLS of its own."""
    uvloop = pytest.importorskip("uvloop")
    proxy = secure_proxy(names=names(secure))

    async def main():
        adopt_server_loop()
        try:
            pool = engine_pool(proxy=proxy.url, tls=trust)
            assert (await pool.fetch(to_llm_test(secure))).status == 200
            await pool.aclose()
            assert sockets_of(pool) == []
        finally:
            release_server_loop()

    uvloop.run(main())
    assert len(proxy.tunnels) == 1


async def test_http_is_forwarded_by_a_proxy_within_tls(secure_proxy, serve, engine_pool, trust, each_loop):
    """Scenario 50: in absolute form, with the credentials in each request."""
    server = serve(json_reply())
    proxy = secure_proxy(names=names(server), credentials="user:s3cr@t")
    pool = engine_pool(proxy=proxy.url_with(SECRET), tls=trust)
    for _ in range(2):
        assert (await pool.fetch(to_llm_test(server))).status == 200
    assert proxy.forwarded == [f"http://llm.test:{server.port}/v1/chat/completions"] * 2
    assert proxy.handshakes == 1


async def test_http2_within_tls_within_tls(secure_proxy, serve, engine_pool, certificates, trust, each_loop):
    """Scenario 50: the server's settings can arrive with the end of its handshake."""
    server = serve(http2.http2(http2.reply(200, b"x" * 300_000)), tls=http2.offering_http2(certificates))
    proxy = secure_proxy(names=names(server))
    pool = engine_pool(proxy=proxy.url, tls=trust)
    whole = await asyncio.gather(*(pool.fetch(to_llm_test(server)) for _ in range(5)))
    assert [len(each.body) for each in whole] == [300_000] * 5


async def test_what_arrives_with_the_end_of_the_handshake_is_not_lost(
    secure_proxy, serve, engine_pool, certificates, trust, each_loop
):
    """Scenario 50: with TLS 1.2 the server's last message and its settings can be one packet."""
    context = http2.offering_http2(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    settings = SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 3}).serialize()

    async def shake_hands(conn):
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(received, to_send, server_side=True)
        while True:
            received.write(await conn.read_some())
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await conn.send(to_send.read())
        tls.write(settings)
        await conn.send(to_send.read())
        await conn.hold()

    server = serve(shake_hands)
    origin = to_llm_test(server).origin._replace(scheme="https")
    pool = engine_pool(proxy=secure_proxy(names=names(server)).url, tls=trust, min_connections=1)
    await pool.prewarm(origin)
    await until_pool(pool, lambda: [entry.capacity for entry in entries_of(pool)] == [3])


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_forwards_gets_http1(
    serve_proxy, secure_proxy, serve, engine_pool, trust, scheme, each_loop
):
    """Scenario 50: with ``HTTP2`` of "prior-knowledge" too."""
    server = serve(json_reply())
    proxy = (secure_proxy if scheme == "https" else serve_proxy)(names=names(server))
    pool = engine_pool(proxy=proxy.url, tls=trust, http2="prior-knowledge")
    assert (await pool.fetch(to_llm_test(server))).status == 200


async def test_a_large_upload_within_tls_within_tls(secure_proxy, secure, engine_pool, trust, each_loop):
    """Scenario 50: the buffers of both transports fill."""
    proxy = secure_proxy(names=names(secure))
    request = request_to(secure, b"x" * 3_000_000, host="llm.test")
    assert (await engine_pool(proxy=proxy.url, tls=trust).fetch(request)).status == 200
    assert len(secure.requests[0].body) == 3_000_000


async def test_the_certificate_of_the_proxy_is_checked(
    serve_proxy, secure, engine_pool, certificates, trust, each_loop
):
    """Scenario 50: the error names the proxy; it gets no request."""
    proxy = serve_proxy(tls=certificates.unknown_authority, names=names(secure))
    pool = engine_pool(proxy=proxy.url, tls=trust)
    message = rf"^no TLS connection to the proxy {proxy.authority}: its certificate was refused: "
    with pytest.raises(ProxyFailed, match=message):
        await pool.fetch(to_llm_test(secure))
    assert (proxy.requests, sockets_of(pool)) == ([], [])


async def test_the_certificate_of_the_server_is_checked_within_tls(
    secure_proxy, serve, engine_pool, certificates, trust, each_loop
):
    """Scenarios 49 and 50: the proxy cannot pose as the provider; no socket is left."""
    server = serve(json_reply(), tls=certificates.wrong_name)
    pool = engine_pool(proxy=secure_proxy(names=names(server)).url, tls=trust)
    with pytest.raises(TLSFailed, match=r"^no TLS connection to https://llm.test:\d+: .*'llm.test'"):
        await pool.fetch(to_llm_test(server))
    assert (server.requests, sockets_of(pool)) == ([], [])


async def test_the_client_certificate_is_for_the_server_alone(
    serve_proxy, serve, engine_pool, certificates, each_loop
):
    """Scenario 50: a proxy that asks for a certificate gets none."""
    server = serve(json_reply(), tls=certificates.requires_client_cert)
    curious = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    curious.load_cert_chain(*certificates.good_files)
    curious.verify_mode = ssl.CERT_OPTIONAL
    curious.load_verify_locations(certificates.client_cert[0])
    proxy = serve_proxy(tls=curious, names=names(server))
    tls = TLS(ca_file=certificates.ca_file, client_cert=certificates.client_cert)
    assert (await engine_pool(proxy=proxy.url, tls=tls).fetch(to_llm_test(server))).status == 200
    assert tls_of(proxy.connections[0]).getpeercert(binary_form=True) is None


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (steps(raw(b"HTTP/1.1 502 No\r\n\r\n"), hold), "it answered 'HTTP/1.1 502 No'"),
        (steps(raw(), close), "it closed the connection"),
        (steps(raw(), reset), "Connection reset by peer|it closed the connection"),
    ],
    ids=["502", "closes", "resets"],
)
async def test_a_proxy_within_tls_that_opens_no_tunnel_is_named(
    serve, secure, engine_pool, certificates, trust, script, why, each_loop
):
    """Scenario 50: ProxyFailed at once, and no socket is left."""
    proxy = serve(script, tls=certificates.good)
    pool = engine_pool(proxy=proxy.url, tls=trust)
    with pytest.raises(ProxyFailed, match=rf"{proxy.authority} opened no tunnel to .*: ({why})$"):
        await pool.fetch(to_llm_test(secure))
    assert sockets_of(pool) == []
    await proxy.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("stalls", ["the proxy's handshake", "CONNECT", "the server's handshake"])
async def test_what_stalls_within_tls_ends_at_the_connect_timeout(
    serve, secure_proxy, engine_pool, trust, stalls, each_loop
):
    """Scenario 50: each step is part of the dial; no socket is left."""
    silent = serve(hold)
    proxy = secure_proxy(names=names(silent), stall=stalls == "CONNECT")
    url = silent.url.replace("http:", "https:") if stalls == "the proxy's handshake" else proxy.url
    request = request_to(silent, host="llm.test", connect=0.3)
    request.origin = request.origin._replace(scheme="https")
    pool = engine_pool(proxy=url, tls=trust)
    with pytest.raises(ConnectTimeout):
        await pool.fetch(request)
    assert sockets_of(pool) == []
    await silent.await_until(lambda s: s.connections_open == 0)
    await proxy.await_until(lambda s: s.connections_open == 0)
