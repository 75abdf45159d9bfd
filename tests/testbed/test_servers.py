"""The servers, which all other tests rely on, follow their scripts and count correctly."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from testbed import Gate, ScriptedServer
from testbed.behaviours import (
    chunked,
    close,
    cut,
    early_reply,
    echo,
    endless,
    expect_continue,
    fin,
    garbage,
    json_reply,
    mark,
    per_connection,
    reset,
    stall,
    steps,
    stop_reading,
    times,
    until,
    until_close,
)
from testbed.chat import chat_completion, chat_stream
from testbed.ports import refused_port, unanswering_port

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def connect() -> Iterator:
    opened = []

    def connect(server: ScriptedServer) -> socket.socket:
        opened.append(socket.create_connection((server.host, server.port), timeout=5))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def client() -> Iterator:
    opened = []

    def client(server: ScriptedServer, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context:
            opened.append(http.client.HTTPSConnection(server.host, server.port, timeout=5, context=context))
        else:
            opened.append(http.client.HTTPConnection(server.host, server.port, timeout=5))
        return opened[-1]

    yield client
    for each in opened:
        each.close()


def ask(
    client: http.client.HTTPConnection, method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    client.request(method, "/v1", body)
    response = client.getresponse()
    return response.status, response.read()


def test_a_script_is_played_again_for_each_request_of_a_connection(serve, client):
    server = serve(json_reply())
    kept = client(server)
    assert [ask(kept, "POST", b"{}") for _ in range(3)] == [(200, b'{"ok": true}')] * 3
    assert [(r.method, r.body, r.connection) for r in server.requests] == [("POST", b"{}", 0)] * 3
    assert (server.connections_accepted, server.connections_open, server.peak_open) == (1, 1, 1)
    kept.close()
    server.wait_until(lambda s: s.connections_open == 0)
    assert [(d.connection, d.reason) for d in server.disconnects] == [(0, "eof")]


def test_peak_counts_what_clients_held_at_one_moment(serve, connect):
    server = serve(json_reply())
    first, second = connect(server), connect(server)
    server.wait_until(lambda s: s.connections_accepted == 2)
    first.close()
    second.close()
    connect(server)
    server.wait_until(lambda s: s.connections_accepted == 3)
    assert server.peak_open == 2


def test_a_reset_and_a_close_of_a_client_are_recorded_apart(serve, connect):
    server = serve(stall)
    sock = connect(server)
    sock.sendall(REQUEST)
    server.wait_requests(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()
    server.wait_until(lambda s: s.disconnects)
    assert server.disconnects[0].reason == "reset"


@pytest.mark.parametrize(("ending", "seen"), [(close, b""), (fin, b""), (reset, ConnectionResetError)])
def test_a_gate_holds_a_script_until_the_test_opens_it(serve, connect, ending, seen):
    server = serve(steps(json_reply(), mark("idle"), until("go"), ending))
    sock = connect(server)
    sock.sendall(REQUEST)
    assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    server.wait_mark("idle")
    assert server.connections_open == 1
    server.gate("go").open()
    if seen == b"":
        assert sock.recv(1) == b""
    else:
        with pytest.raises(seen):
            sock.recv(1)


def test_a_client_that_disconnects_ends_a_script_waiting_at_a_gate(serve, connect):
    server = serve(until("never"))
    connect(server).close()
    server.wait_until(lambda s: s.disconnects and s.connections_open == 0)


def test_a_wait_that_times_out_reports_the_servers_counters(serve):
    with pytest.raises(AssertionError, match=r"mark 'x' x 2; http://127.*0 accepted"):
        serve(stall).wait_mark("x", count=2, timeout=0.01)


def test_an_error_in_a_script_fails_the_test():
    async def broken(conn):
        raise ZeroDivisionError

    server = ScriptedServer(broken).start()
    with socket.create_connection((server.host, server.port)) as sock:
        assert sock.recv(1) == b""
    with pytest.raises(ZeroDivisionError):
        server.stop()


async def test_marks_and_gates_serve_event_loops_too(serve):
    server = serve(chat_stream(["a", "b"], pace="token"))
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(REQUEST)
    token = server.gate("token")
    await token.await_reached(1)
    token.admit(1)
    assert b'"a"' in await reader.readuntil(b'"a"')
    await token.await_reached(2)
    assert not reader._buffer.count(b'"b"')
    token.open()
    assert b"data: [DONE]" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    await server.await_until(lambda s: s.connections_open == 0)


def test_a_gate_admits_as_many_threads_as_asked_for():
    gate = Gate()
    through = threading.Semaphore(0)
    threads = [threading.Thread(target=lambda: (gate.block(), through.release())) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.wait_reached(3)
    gate.admit(2)
    assert through.acquire(timeout=5)
    assert through.acquire(timeout=5)
    assert not through.acquire(blocking=False)
    gate.open()
    for thread in threads:
        thread.join()


def test_responses_are_valid_http(serve, client):
    server = serve(
        per_connection(
            chunked(b"ab", b"c", trailers={"X-T": "1"}),
            until_close(b"old"),
            chat_completion("Hi."),
            echo,
            expect_continue(201, b"made"),
        )
    )
    assert ask(client(server)) == (200, b"abc")
    assert ask(client(server)) == (200, b"old")
    assert b'"content": "Hi."' in ask(client(server))[1]
    assert b'"method": "PUT"' in ask(client(server), "PUT", b"x")[1]
    assert ask(client(server), "POST", b"body") == (201, b"made")
    assert server.requests[-1].body == b"body"


def test_a_body_in_chunks_is_read(serve, client):
    server = serve(json_reply())
    client(server).request("POST", "/", iter([b"ab", b"cde"]), encode_chunked=True)
    server.wait_requests(1)
    assert server.requests[0].body == b"abcde"


def test_misbehaving_scripts_do_what_their_names_say(serve, client, connect):
    server = serve(per_connection(cut(b"0123456789", 4), garbage, early_reply(413), times(2, json_reply())))
    with pytest.raises(http.client.IncompleteRead) as cut_short:
        ask(client(server))
    assert cut_short.value.partial == b"0123"
    with pytest.raises(http.client.BadStatusLine):
        ask(client(server))
    sock = connect(server)
    sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
    assert [r.body for r in server.requests] == [b""] * 3


def test_a_server_that_stops_reading_fills_the_window(serve, connect):
    server = serve(stop_reading("read on"))
    sock = connect(server)
    body = b"x" * 30_000_000
    sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
    server.gate("read on").wait_reached()
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.sendall(body)


def test_a_client_that_stops_reading_stops_an_endless_body(serve, connect):
    server = serve(endless())
    sock = connect(server)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.sendall(REQUEST)
    server.wait_requests(1)
    assert sock.recv(100, socket.MSG_WAITALL)
    sock.close()
    server.wait_until(lambda s: s.disconnects and s.disconnects[0].reason == "reset")
    assert server.connections[0].bytes_sent < 50_000_000


def test_a_server_refuses_and_listens_again_on_the_same_port(serve, client):
    server = serve(json_reply())
    kept = client(server)
    assert ask(kept)[0] == 200
    server.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(client(server))
    assert ask(kept)[0] == 200
    server.listen_again()
    assert ask(client(server))[0] == 200


def test_unanswering_and_refusing_ports():
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with unanswering_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.2)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_other_addresses(serve, client, host):
    server = serve(json_reply(), host=host)
    assert ask(client(server))[0] == 200
    assert server.origin == ("http", host, server.port)


def test_a_unix_socket(serve, tmp_path):
    server = serve(json_reply(), uds=tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.uds)
        sock.sendall(REQUEST)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


# TLS.


def test_tls_and_a_handshake_that_waits(serve, client, certificates):
    gate = Gate()
    server = serve(json_reply(), tls=certificates.good, before_handshake=gate.passage)
    secure = client(server, certificates.client_context())
    asking = threading.Thread(target=ask, args=(secure,))
    asking.start()
    gate.wait_reached()
    assert (server.connections_accepted, server.handshakes, server.requests) == (1, 0, [])
    gate.open()
    asking.join()
    assert (server.handshakes, len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("expired", "certificate has expired"),
        ("wrong_name", "IP address mismatch"),
        ("self_signed", "self-signed certificate"),
        ("unknown_authority", "unable to get local issuer certificate"),
    ],
)
def test_each_bad_certificate_is_rejected_for_its_reason(serve, client, certificates, bad, reason):
    server = serve(json_reply(), tls=getattr(certificates, bad))
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        ask(client(server, certificates.client_context()))
    server.wait_until(lambda s: s.handshake_failures and s.connections_open == 0)
    assert server.requests == []


def test_a_server_that_requires_a_client_certificate(serve, client, certificates):
    server = serve(json_reply(), tls=certificates.requires_client_cert)
    known, stranger = certificates.client_context(), certificates.client_context()
    known.load_cert_chain(*certificates.client_cert)
    assert ask(client(server, known))[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(client(server, stranger))


# The proxy and the name service.


def test_the_proxy_tunnels_and_forwards(serve, serve_proxy, client, certificates):
    plain, secure = serve(json_reply()), serve(json_reply(), tls=certificates.good)
    proxy = serve_proxy(names={"llm.test:443": (secure.host, secure.port)})
    tunnel = http.client.HTTPSConnection(
        proxy.host, proxy.port, timeout=5, context=certificates.client_context()
    )
    tunnel.set_tunnel("llm.test", 443)
    assert ask(tunnel)[0] == 200
    tunnel.close()
    forward = client(proxy)
    for _ in range(2):
        forward.request("POST", f"{plain.url}/a?b", b"{}", {"Proxy-Connection": "keep-alive"})
        assert forward.getresponse().read() == b'{"ok": true}'
    assert (proxy.tunnels, proxy.forwarded) == (["llm.test:443"], [f"{plain.url}/a?b"] * 2)
    assert [(r.target, r.connection) for r in plain.requests] == [("/a?b", 0)] * 2
    assert not [name for name in plain.requests[0].headers if name.startswith("proxy-")]
    forward.close()
    for each in (plain, secure, proxy):
        each.wait_until(lambda s: s.connections_open == 0)


def test_the_proxy_requires_credentials_and_refuses_others(serve_proxy, client):
    assert ask(client(serve_proxy(credentials="user:word")))[0] == 407
    assert ask(client(serve_proxy(refuse=502)))[0] == 502


def test_the_name_service_answers_counts_and_fails(fake_dns):
    fake_dns.names["llm.test"] = ["127.0.0.1", "::1", "127.0.0.2"]
    fake_dns.names["ill.test"] = socket.gaierror(socket.EAI_AGAIN, "try again")
    answers = socket.getaddrinfo("llm.test", 80, type=socket.SOCK_STREAM)
    assert [row[4][0] for row in answers] == ["127.0.0.1", "::1", "127.0.0.2"]
    assert len(socket.getaddrinfo("llm.test", 80, socket.AF_INET6, socket.SOCK_STREAM)) == 1
    for name in ("ill.test", "no.test"):
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(name, 80)
    assert fake_dns.queries == ["llm.test", "llm.test", "ill.test", "no.test"]
    assert fake_dns.threads == [threading.current_thread()] * 4


async def test_a_look_up_waits_at_its_gate(fake_dns):
    fake_dns.names["llm.test"], fake_dns.gate = "127.0.0.1", Gate()
    looking = asyncio.create_task(asyncio.get_running_loop().getaddrinfo("llm.test", 80))
    await fake_dns.gate.await_reached()
    assert not looking.done()
    fake_dns.gate.open()
    assert (await looking)[0][4] == ("127.0.0.1", 80)


def test_a_client_that_connects_during_stop_does_not_delay_it():
    for _ in range(100):  # in some runs the connection's task is cancelled before its first step
        server = ScriptedServer(json_reply()).start()
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex((server.host, server.port))
            server.stop()
        assert server.connections_open == 0
