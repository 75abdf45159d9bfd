"""nginx as upstream: complete responses over HTTP/1.1, and over TLS with HTTP/2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import trustme

from benchmarks.clients.base import Target
from benchmarks.machine import held_to, upstream_core
from benchmarks.upstreams.answers import COMPLETION, MESSAGE
from testbed.process import free_port, running
from testbed.programs import program

__all__ = ["nginx"]


@contextlib.contextmanager
def nginx(
    directory: Path, *, tls: bool = False, host: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[Target]:
    """Run one nginx process on ``host`` while the block runs.

    With ``tls`` it offers HTTP/2 and HTTP/1.1. ``inside`` is a command that runs the command after it, such
    as ``ip netns exec NAME``. Raises ProgramMissing if nginx is not installed.
    """
    binary = program("nginx")
    port = 8443 if inside else free_port(host)  # in a new namespace every port is free
    directory.mkdir(parents=True, exist_ok=True)
    ca_file = None
    lines = f"listen {host}:{port} backlog=4096;"
    if tls:
        ca_file, certificate, key = _certificate(directory, host)
        lines = (
            f"listen {host}:{port} ssl http2 backlog=4096;"
            f"ssl_certificate {certificate}; ssl_certificate_key {key};"
        )
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(directory=directory, lines=lines, completion=COMPLETION, message=MESSAGE)
    )
    command = [*inside, binary, "-p", str(directory), "-e", "stderr", "-c", str(config)]
    with running(held_to(upstream_core(), command), directory / "nginx.log", port, host):
        yield Target(f"http{'s' if tls else ''}://{host}:{port}/v1", ca_file, http2=tls)


def _certificate(directory: Path, host: str) -> tuple[str, str, str]:
    """Make PEM files and return their paths: the authority, a certificate of ``host``, its key."""
    authority = trustme.CA()
    leaf = authority.issue_cert(host)
    files = [directory / name for name in ("ca.pem", "server.pem", "server.key")]
    blobs = [authority.cert_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems)]
    for file, blob in zip(files, [*blobs, leaf.private_key_pem.bytes()], strict=True):
        file.write_bytes(blob)
    ca_file, certificate, key = map(str, files)
    return ca_file, certificate, key


_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    tcp_nodelay on;
    server {{
        {lines}
        location /v1/chat/completions {{ return 200 '{completion}'; }}
        location /v1/messages {{ return 200 '{message}'; }}
    }}
}}
"""
