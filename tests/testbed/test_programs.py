"""The programs start, respond, count requests and end."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing

import pytest

from testbed import programs
from testbed.behaviours import json_reply

pytestmark = pytest.mark.server


def test_nginx_answers_over_tcp_tls_and_a_unix_socket_and_counts(start_nginx, certificates):
    nginx = start_nginx(size=2000, certificate=certificates.good_files)
    plain = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=5)
    context = certificates.client_context()
    secure = http.client.HTTPSConnection("127.0.0.1", nginx.https_port, timeout=5, context=context)
    for client in (plain, secure):
        with closing(client):
            for _ in range(2):
                client.request("POST", "/v1/chat/completions", b"{}")
                assert client.getresponse().read() == nginx.body
    assert len(nginx.body) == 2000
    assert nginx.counts() == (2, 4)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(nginx.uds)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_nghttpd_speaks_http2(start_nghttpd, certificates):
    nghttpd = start_nghttpd(certificate=certificates.good_files)
    context = certificates.client_context()
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", nghttpd.port), timeout=5) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"


def test_haproxy_forwards_to_a_server(serve, start_haproxy):
    server = serve(json_reply())
    haproxy = start_haproxy(server.port)
    with closing(http.client.HTTPConnection("127.0.0.1", haproxy.http_port, timeout=5)) as client:
        client.request("GET", "/")
        assert client.getresponse().read() == b'{"ok": true}'
    assert len(server.requests) == 1


def test_a_missing_program_skips_and_fails_in_ci(start_nginx, monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nginx is not installed"):
        start_nginx()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nginx is not installed, and CI must have it"):
        start_nginx()


def test_a_missing_node_skips_and_fails_in_ci(start_echo, monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="node is not installed"):
        start_echo("node")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="node is not installed, and CI must have it"):
        start_echo("node")
