"""TLS on each engine: files that change, client certificates that are refused, and ``sni_hostname``."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from llm_pool.exceptions import InvalidRequest, TLSFailed
from testbed.tls import NAMES, refuse_client, server_context
from tests.backends.conftest import KINDS
from tests.backends.servers import answer
from tests.fixtures.internals import tls_of


async def test_a_new_client_certificate_is_used_by_new_connections(
    serve, play, configure, certificates, tmp_path
):
    """Scenario 60: on each engine the server gets the certificate that is in the files."""
    server = serve(play(answer), tls=certificates.requires_client_cert)
    paths = tmp_path / "client.pem", tmp_path / "client.key"
    tls = {"ca_file": certificates.ca_file, "client_cert": tuple(map(str, paths))}
    pool = configure(server, TLS=tls, LIMITS={"max_keepalive_connections": 0})
    for _ in range(3):
        pair = certificates.new_client_cert()
        _write(paths, pair)
        assert (await pool.arequest("GET", "/x")).status_code == 200
        shown = tls_of(server.connections[-1]).getpeercert(binary_form=True)
        assert shown == ssl.PEM_cert_to_DER_cert(pair[0].decode())


def _write(paths: tuple[Path, Path], contents: tuple[bytes, bytes]) -> None:
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)


BODY = 10_000  # bytes
REFUSALS = {
    "required": "the server requires a client certificate: set client_cert in TLS",
    "unknown": (
        "the server refused the client certificate, or requires one (unknown ca): check client_cert in TLS"
    ),
}


@pytest.fixture
def assert_refused(kind, serve, configure, certificates):
    """``assert_refused(given, version, after=1)``: each call is a TLSFailed that says why."""

    async def check(given, version, *, after):
        server, url = _refusing_server(serve, certificates, version, after, h2=kind.endswith("http2"))
        tls = {"ca_file": certificates.ca_file}
        if given == "unknown":
            tls["client_cert"] = certificates.client_cert
        pool = configure(url, TLS=tls, HTTP2=kind.endswith("http2"))
        for _ in range(3):
            with pytest.raises(TLSFailed) as caught:
                await pool.arequest("POST", "/x", content=b"x" * BODY, headers={"Idempotency-Key": "1"})
            assert str(caught.value) == f"no TLS connection to {url}: {REFUSALS[given]}"
        return server

    return check


async def test_a_client_certificate_can_be_refused_in_the_handshake(assert_refused, each_loop):
    """Scenario 49: in TLS 1.2, which has no alert for a missing certificate."""
    await assert_refused("unknown", ssl.TLSVersion.TLSv1_2, after=1)


@pytest.mark.parametrize("given", REFUSALS)
async def test_a_client_certificate_can_be_refused_during_the_request(assert_refused, given, each_loop):
    """Scenario 49: in TLS 1.3. The request is not sent again."""
    server = await assert_refused(given, ssl.TLSVersion.TLSv1_3, after=BODY // 2)
    assert server.connections_accepted == 3


@pytest.mark.kinds([kind for kind in KINDS if not kind.startswith("httpcore")])
@pytest.mark.parametrize("given", REFUSALS)
async def test_a_client_certificate_can_be_refused_before_the_request(assert_refused, given, each_loop):
    """Scenario 49: in TLS 1.3. httpcore does not read the alert if it cannot write the request."""
    await assert_refused(given, ssl.TLSVersion.TLSv1_3, after=1)


def _refusing_server(serve, certificates, version, after, *, h2):
    context = server_context(certificates.authority.issue_cert(*NAMES))
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    trustme.CA().configure_trust(context)
    if h2:
        context.set_alpn_protocols(["h2"])
    server = serve(refuse_client(context, after=after))
    return server, f"https://{server.authority}"


@pytest.fixture
def names_seen(certificates):
    """A server's context for api.test and other.test, and the names that clients gave in SNI."""
    context = server_context(certificates.authority.issue_cert("api.test", "other.test"))
    names = []
    context.sni_callback = lambda _, name, __: names.append(name)
    return context, names


async def test_sni_hostname_takes_the_place_of_the_host(
    serve, play, configure, certificates, names_seen, each_loop
):
    """Scenario 49: httpx's request extension; a connection for one name carries no call for another."""
    context, names = names_seen
    server = serve(play(answer), tls=context)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    for name in ("api.test", "API.test", "other.test", "api.test"):
        extensions = {"sni_hostname": name}
        assert (await pool.aclient.post("/x", extensions=extensions)).status_code == 200
    assert names == ["api.test", "other.test"]
    assert [request.connection for request in server.requests] == [0, 0, 1, 0]


@pytest.mark.parametrize("name", [None, "", "wrong.test"])
async def test_the_certificate_must_be_for_sni_hostname(
    serve, play, configure, certificates, names_seen, name
):
    """Scenario 49: also after a call with the right name; without the extension, for the host."""
    server = serve(play(answer), tls=names_seen[0])
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    await pool.aclient.post("/x", extensions={"sni_hostname": "api.test"})
    expected = f"certificate is not valid for '{name or server.host}'"
    with pytest.raises(TLSFailed, match=expected):
        await pool.aclient.post("/x", extensions={"sni_hostname": name} if name is not None else {})
    assert len(server.requests) == 1


async def test_sni_hostname_through_a_proxy(
    kind, serve, play, serve_proxy, configure, certificates, names_seen
):
    """Scenarios 49 and 50: httpcore would ignore it, so the call is refused there."""
    context, names = names_seen
    server, proxy = serve(play(answer), tls=context), serve_proxy()
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, PROXY=proxy.url)
    call = pool.aclient.post("/x", extensions={"sni_hostname": "api.test"})
    if kind.startswith("httpcore"):
        with pytest.raises(TLSFailed, match="through a proxy httpcore ignores sni_hostname"):
            await call
        assert proxy.connections_accepted == 0
    else:
        assert (await call).status_code == 200
        assert names == ["api.test"]


async def test_sni_hostname_has_no_effect_without_tls(server, configure):
    """Scenario 49: connections are shared with calls without it."""
    pool = configure(server)
    for extensions in ({"sni_hostname": "api.test"}, {}):
        assert (await pool.aclient.post("/x", extensions=extensions)).status_code == 200
    assert server.connections_accepted == 1


@pytest.mark.parametrize("name", [b"api.test", ["api.test"], 1])
async def test_an_sni_hostname_that_is_no_string_is_refused(server, configure, name):
    """Scenario 49: before anything is sent."""
    with pytest.raises(InvalidRequest, match=r"sni_hostname is an? .*, not a string"):
        await configure(server).aclient.post("/x", extensions={"sni_hostname": name})
    assert server.connections_accepted == 0
