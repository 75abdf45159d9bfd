"""TLS: which certificates the pool accepts, bad files, failed handshakes, resumption and close."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from llm_pool.engine.config import TLS
from llm_pool.engine.loops.portal import adopt_server_loop, release_server_loop
from llm_pool.exceptions import ConnectTimeout, LLMPoolError, TLSFailed
from testbed.behaviours import close, hold, json_reply, reset, send, steps
from testbed.board import WAIT_SECONDS
from testbed.tls import server_context
from tests.fixtures.engine import request_to
from tests.fixtures.internals import sockets_of, tls_of
from tests.fixtures.reports import reported

BAD_CERTIFICATES = {
    "wrong_name": r"(Hostname|IP address) mismatch, certificate is not valid for '{host}'\.",
    "expired": "certificate has expired",
    "self_signed": "self.signed certificate",
    "unknown_authority": "unable to get local issuer certificate",
}


# Certificates.


@pytest.mark.parametrize("host", [None, "llm.test"], ids=["address", "name"])
@pytest.mark.parametrize("fault", BAD_CERTIFICATES)
async def test_a_bad_certificate_is_named_and_nothing_is_sent(
    serve, engine_pool, certificates, fake_dns, fault, host
):
    """Scenario 49: the error names host and reason; no byte of the request reaches the server."""
    server = serve(json_reply(), tls=getattr(certificates, fault))
    fake_dns.names["llm.test"] = "127.0.0.1"
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    request = request_to(server, host=host)
    reason = BAD_CERTIFICATES[fault].format(host=request.origin.host)
    message = rf"^no TLS connection to {request.origin}: its certificate was refused: {reason}"
    with pytest.raises(TLSFailed, match=message):
        await pool.fetch(request)
    await server.await_until(lambda s: s.handshake_failures and s.connections_open == 0)
    assert (server.handshakes, server.requests) == (0, [])
    assert server.connections[0].bytes_received == 0
    assert sockets_of(pool) == []


async def test_the_systems_authorities_do_not_include_that_of_the_tests(
    serve, engine_pool, certificates, each_loop
):
    """Scenario 49: without a ``ca_file`` the trust store of the system is used."""
    server = serve(json_reply(), tls=certificates.good)
    with pytest.raises(TLSFailed, match=r"unable to get local issuer certificate$"):
        await engine_pool().fetch(request_to(server))
    assert server.handshakes == 0


async def test_nothing_is_verified_where_that_is_asked_for(serve, engine_pool, certificates, each_loop):
    """Scenario 49: ``verify: False`` accepts any certificate."""
    server = serve(json_reply(), tls=certificates.self_signed)
    assert (await engine_pool(tls=TLS(verify=False)).fetch(request_to(server))).status == 200


@pytest.mark.parametrize("host", ["llm.test", "llm.test.", "LLM.TEST", "a.llm.test"])
async def test_a_good_certificate_is_taken_for_all_its_names(
    serve, engine_pool, certificates, fake_dns, host
):
    """Scenario 49: a dot at the end is not part of the name; SNI has the name."""
    names = []
    context = certificates.authority.issue_cert("llm.test", "*.llm.test")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.configure_cert(server_side)
    server_side.sni_callback = lambda _, name, __: names.append(name)
    server = serve(json_reply(), tls=server_side)
    fake_dns.names[host] = "127.0.0.1"
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    assert (await pool.fetch(request_to(server, host=host))).status == 200
    assert [name.lower() for name in names] == [host.lower().rstrip(".")]


async def test_an_ipv6_address_has_a_certificate_too(serve, engine_pool, certificates):
    """Scenario 49: the certificate contains the address, and there is no SNI."""
    names = []
    certificates.good.sni_callback = lambda _, name, __: names.append(name)
    server = serve(json_reply(), tls=certificates.good, host="::1")
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    assert (await pool.fetch(request_to(server))).status == 200
    assert names == [None]


async def test_a_client_certificate_is_sent(serve, engine_pool, certificates, each_loop):
    """Scenario 49: with ``client_cert`` the server answers; without it no request is read."""
    server = serve(json_reply(), tls=certificates.requires_client_cert)
    trust = {"ca_file": certificates.ca_file}
    known = engine_pool(tls=TLS(**trust, client_cert=certificates.client_cert))
    assert (await known.fetch(request_to(server))).status == 200
    unknown = engine_pool(tls=TLS(**trust))
    with pytest.raises(LLMPoolError):
        await unknown.fetch(request_to(server))
    assert len(server.requests) == 1


async def test_a_context_of_the_users_own_takes_the_place_of_the_settings(serve, engine_pool, certificates):
    """Scenario 49: it is used unchanged, and the other settings are ignored."""
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=TLS(context=certificates.client_context(), ca_file="/nowhere/ca.pem"))
    assert (await pool.fetch(request_to(server))).status == 200


# Files.


@pytest.fixture
def locked_key(certificates, tmp_path):
    """The client's certificate, and its key with the password "open sesame"."""
    certificate, key = certificates.client_cert
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    return certificate, str(locked)


async def test_a_key_may_have_a_password(serve, engine_pool, certificates, locked_key):
    """Scenario 49: ``client_cert`` is (certificate, key, password)."""
    server = serve(json_reply(), tls=certificates.requires_client_cert)
    tls = TLS(ca_file=certificates.ca_file, client_cert=(*locked_key, "open sesame"))
    assert (await engine_pool(tls=tls).fetch(request_to(server))).status == 200


@pytest.mark.parametrize("password", [(), ("close sesame",)], ids=["none", "wrong"])
async def test_a_key_without_its_password_is_an_error_without_a_prompt(
    serve, engine_pool, certificates, locked_key, password
):
    """Scenario 49: OpenSSL does not ask at the terminal, and the error does not show the password."""
    server = serve(json_reply(), tls=certificates.good)
    tls = TLS(ca_file=certificates.ca_file, client_cert=(*locked_key, *password))
    with pytest.raises(TLSFailed, match=r"^the TLS setting client_cert \(.*\) cannot be used: ") as caught:
        await engine_pool(tls=tls).fetch(request_to(server))
    assert "sesame" not in f"{caught.value!r} {tls!r}"
    assert server.connections_accepted == 0
    assert "sesame" not in reported(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"", ""), (b"rubbish", ""), (b"\0", "")]
)
@pytest.mark.parametrize("setting", ["ca_file", "client_cert"])
async def test_a_file_that_is_of_no_use_is_named(
    serve, engine_pool, certificates, tmp_path, setting, content, reason
):
    """Scenario 49: the error names the setting, the file, and what is wrong with it."""
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    server = serve(json_reply(), tls=certificates.good)
    tls = TLS(**{"ca_file": certificates.ca_file, setting: str(path)})
    with pytest.raises(
        TLSFailed, match=rf"^the TLS setting {setting} \({path}\) cannot be used: {reason}"
    ) as caught:
        await engine_pool(tls=tls).fetch(request_to(server))
    assert not str(caught.value).endswith(": ")
    assert ".c:" not in str(caught.value)


async def test_a_file_that_appears_is_read_at_the_next_dial(serve, engine_pool, certificates, tmp_path):
    """Scenario 49: the failure is not cached: a mounted secret may appear late."""
    late = tmp_path / "late.pem"
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=str(late)))
    with pytest.raises(TLSFailed):
        await pool.fetch(request_to(server))
    late.write_bytes(certificates.authority.cert_pem.bytes())
    assert (await pool.fetch(request_to(server))).status == 200


async def test_contexts_are_built_once_and_on_no_event_loop(serve, engine_pool, certificates, monkeypatch):
    """Scenario 49: one context for all connections of a pool, on both loops, built in another thread."""
    built = []
    build = ssl.create_default_context

    def watched(*args, **kwargs):
        built.append(threading.current_thread().name)
        return build(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", watched)
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    request = request_to(server)
    adopt_server_loop()
    try:
        calls = [pool.fetch(request) for _ in range(4)]
        await asyncio.gather(*calls, asyncio.to_thread(pool.fetch_sync, request))
    finally:
        release_server_loop()
    assert server.handshakes > 1
    assert len(built) == 1
    assert built[0] not in {threading.current_thread().name, "llm_pool-portal"}


# The handshake.


async def hello(conn):
    """Wait until the client has begun its handshake."""
    await conn.read_some()


@pytest.mark.parametrize("http2", [True, False])
async def test_alpn_says_what_is_spoken(serve, engine_pool, certificates, http2):
    """Scenario 49: a server that offers only HTTP/1.1 gets HTTP/1.1."""
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file), http2=http2)
    await pool.fetch(request_to(server))
    assert tls_of(server.connections[0]).selected_alpn_protocol() == "http/1.1"


respond_once_and_close = steps(json_reply(headers={"Connection": "close"}), close)


@pytest.fixture
def force_resumption(monkeypatch):
    """Resume sessions on every Python version: a leak of a few sessions does not matter here."""
    monkeypatch.setattr("llm_pool.engine.dialer.tls.CAN_RESUME", True)


async def test_where_python_leaks_sessions_none_is_looked_at(
    serve, engine_pool, certificates, monkeypatch, each_loop
):
    """Scenario 49: a full handshake costs a millisecond; a leaked session is never freed."""
    monkeypatch.setattr("llm_pool.engine.dialer.tls.CAN_RESUME", False)
    monkeypatch.setattr(ssl.SSLObject, "session", property(lambda _: pytest.fail("a session was looked at")))
    server = serve(respond_once_and_close, tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    for _ in range(2):
        assert (await pool.fetch(request_to(server))).status == 200
    assert server.handshakes == 2


@pytest.mark.usefixtures("force_resumption")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes_the_session_of_the_last(
    serve, engine_pool, certificates, version, each_loop
):
    """Scenario 49: the server sees a short handshake, even if the last connection has ended."""
    context = server_context(certificates.authority.issue_cert("127.0.0.1"))
    context.minimum_version = context.maximum_version = version
    server = serve(respond_once_and_close, tls=context)
    reused = []
    server.script = steps(lambda conn: _note(conn, reused), server.script)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    for _ in range(3):
        assert (await pool.fetch(request_to(server))).status == 200
    assert server.handshakes == 3
    assert reused == [False, True, True]


async def _note(conn, reused):
    reused.append(tls_of(conn).session_reused)


@pytest.mark.usefixtures("force_resumption")
@pytest.mark.parametrize("fault", ["self_signed", "unknown_authority", "expired"])
async def test_a_session_does_not_replace_certificate_checks(
    serve, engine_pool, certificates, fake_dns, fault
):
    """Scenario 49: a server of the same name that cannot resume must show its certificate."""
    server, other = (
        serve(json_reply(), tls=certificates.good),
        serve(json_reply(), tls=getattr(certificates, fault)),
    )
    fake_dns.names["llm.test"] = "127.0.0.1"
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    assert (await pool.fetch(request_to(server, host="llm.test"))).status == 200
    for _ in range(2):
        with pytest.raises(TLSFailed):
            await pool.fetch(request_to(other, host="llm.test"))
    assert other.requests == []


@pytest.mark.usefixtures("force_resumption")
async def test_both_loops_resume_at_the_same_time(serve, engine_pool, certificates):
    """Scenario 49: each thread has its own sessions."""
    server = serve(respond_once_and_close, tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    adopt_server_loop()
    try:
        for _ in range(10):
            here, there = (
                pool.fetch(request_to(server)),
                asyncio.to_thread(pool.fetch_sync, request_to(server)),
            )
            assert [whole.status for whole in await asyncio.gather(here, there)] == [200, 200]
    finally:
        release_server_loop()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (steps(hello, close), "the connection was closed during the handshake|.*eof"),
        (steps(hello, reset), "the connection was closed during the handshake"),
        (steps(send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hold), "wrong version number|record layer failure"),
        (steps(send(b"\0" * 64), hold), "."),
    ],
    ids=["FIN", "RST", "plain HTTP", "rubbish"],
)
async def test_a_server_that_speaks_no_tls_is_a_clear_error(
    serve, engine_pool, certificates, script, reason, each_loop
):
    """Scenario 49: one sentence with host and reason."""
    server = serve(script)
    request = request_to(server)
    request.origin = request.origin._replace(scheme="https")
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    with pytest.raises(TLSFailed, match=rf"^no TLS connection to {request.origin}: ({reason})") as caught:
        await pool.fetch(request)
    assert ".c:" not in str(caught.value)
    assert sockets_of(pool) == []


async def test_a_handshake_that_stalls_ends_at_the_connect_timeout(
    serve, engine_pool, certificates, each_loop
):
    """Scenario 49: no socket is left."""
    server = serve(hold)
    request = request_to(server, connect=0.1)
    request.origin = request.origin._replace(scheme="https")
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    with pytest.raises(ConnectTimeout, match=rf"^no connection to {request.origin} within 0.1 s$"):
        await pool.fetch(request)
    assert sockets_of(pool) == []
    await server.await_until(lambda s: s.connections_open == 0)


async def test_a_connection_is_closed_with_a_close_notify(serve, engine_pool, certificates, each_loop):
    """Scenario 49: the server sees an orderly close, not a truncation."""
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    await pool.fetch(request_to(server))
    await pool.aclose()
    await server.await_until(lambda s: s.disconnects)
    assert server.disconnects[0].reason == "eof"


async def test_a_close_notify_without_an_answer_delays_a_close_by_one_second(
    serve, engine_pool, certificates, each_loop, monkeypatch
):
    """Scenarios 49 and 51: the pool does not have to abort the connection."""
    monkeypatch.setattr("llm_pool.engine.pool.CLOSE_SECONDS", 60.0)

    async def deaf(conn):
        conn.pause_reading()
        conn.server.mark("deaf")
        await conn.hold()

    server = serve(steps(json_reply(), deaf), tls=certificates.good)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file))
    await pool.fetch(request_to(server))
    await server.await_mark("deaf")
    async with asyncio.timeout(WAIT_SECONDS):
        await pool.aclose()
    assert sockets_of(pool) == []
