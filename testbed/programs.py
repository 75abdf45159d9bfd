"""Real servers from PATH (nginx, nghttpd, haproxy) on free loopback ports; for tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.process import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Haproxy", "Nghttpd", "Nginx", "ProgramMissing", "haproxy", "nghttpd", "nginx", "program"]

COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"test-model",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
)
CertificateFiles = tuple[str, str]
"""PEM files: certificate, key."""


class ProgramMissing(Exception):
    """The program is not installed on this machine."""


def program(name: str) -> str:
    """The path of a program; daemons often live in /usr/sbin, which is not on every user's PATH."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    path = shutil.which(name, path=places)
    if path is None:
        raise ProgramMissing(f"{name} is not installed")
    return path


@dataclass
class Nginx:
    """A running nginx. It answers each POST and GET with the same chat completion."""

    http_port: int
    https_port: int | None
    uds: str
    body: bytes
    pid: int
    _status_port: int
    _probes: int
    """Connections by which ``running`` saw that it listens."""
    _asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def https_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    def counts(self) -> tuple[int, int]:
        """(connections accepted, requests served) so far, without those that such questions cost."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_port}/", timeout=5) as response:
            accepted, _, requests = response.read().split(b"\n")[2].split()
        self._asked += 1
        return int(accepted) - self._asked - self._probes, int(requests) - self._asked


@contextlib.contextmanager
def nginx(
    directory: Path,
    *,
    body: bytes | None = None,
    size: int | None = None,
    certificate: CertificateFiles | None = None,
    keepalive_seconds: int = 75,
    http2: bool = False,
) -> Iterator[Nginx]:
    """One nginx worker; a completion of ``size`` bytes (or ``body``) over HTTP, a Unix socket and HTTPS.

    With ``http2`` the HTTPS port offers that too.
    """
    binary = program("nginx")
    directory.mkdir(parents=True, exist_ok=True)
    body = completion(size) if body is None else body
    (directory / "completion.json").write_bytes(body)
    http_port, status_port = free_port(), free_port()
    https_port = free_port() if certificate else None
    uds = str(directory / "nginx.sock")
    tls = ""
    if certificate:
        tls = (
            f"listen 127.0.0.1:{https_port} ssl{' http2' if http2 else ''}; "
            f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};"
        )
    config = directory / "nginx.conf"
    config.write_text(
        _NGINX.format(
            directory=directory,
            http_port=http_port,
            status_port=status_port,
            tls=tls,
            uds=uds,
            keepalive=keepalive_seconds,
        )
    )
    command = [binary, "-p", str(directory), "-e", "stderr", "-c", str(config)]
    others = [status_port, https_port] if https_port else [status_port]
    with running(command, directory / "nginx.log", http_port, also=others) as process:
        yield Nginx(http_port, https_port, uds, body, process.pid, status_port, 1 + len(others))


def completion(size: int | None = None) -> bytes:
    """A chat completion of exactly ``size`` bytes of JSON (at least some 250); a short one without."""
    plain = COMPLETION % b"Hello!"
    return COMPLETION % (b"Hello!" + b"x" * max(0, (size or 0) - len(plain)))


# One process and no user switch, so that it may read a folder that is open to its owner alone. A file
# answers a POST with 405, which is why that is turned round.
_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_timeout {keepalive};
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    open_file_cache max=10;
    tcp_nodelay on;
    server {{
        listen 127.0.0.1:{http_port} backlog=4096;
        listen unix:{uds};
        {tls}
        root {directory};
        error_page 405 =200 /completion.json;
        location / {{ try_files /completion.json =404; }}
    }}
    server {{
        listen 127.0.0.1:{status_port};
        keepalive_timeout 0;
        location / {{ stub_status; }}
    }}
}}
"""


@dataclass(frozen=True)
class Nghttpd:
    """A running nghttpd (HTTP/2). It serves the files in ``root``."""

    port: int
    scheme: str
    root: Path
    pid: int

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextlib.contextmanager
def nghttpd(
    directory: Path,
    *,
    certificate: CertificateFiles | None = None,
    options: Sequence[str] = (),
    body: bytes | None = None,
) -> Iterator[Nghttpd]:
    """HTTP/2 over TLS, or by prior knowledge without; /completion.json is a chat completion."""
    binary = program("nghttpd")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "completion.json").write_bytes(completion() if body is None else body)
    port = free_port()
    last = [certificate[1], certificate[0]] if certificate else []
    tls = [] if certificate else ["--no-tls"]
    command = [binary, "-a", "127.0.0.1", "-d", str(directory), *tls, *options, str(port), *last]
    with running(command, directory / "nghttpd.log", port) as process:
        yield Nghttpd(port, "https" if certificate else "http", directory, process.pid)


@dataclass(frozen=True)
class Haproxy:
    """A running haproxy before a backend."""

    http_port: int
    https_port: int | None
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def https_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"


@contextlib.contextmanager
def haproxy(
    directory: Path, backend_port: int, *, certificate: CertificateFiles | None = None, http_lines: str = ""
) -> Iterator[Haproxy]:
    """haproxy in HTTP mode before a backend on loopback; ``http_lines`` go into its frontend."""
    binary = program("haproxy")
    directory.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    https_port = free_port() if certificate else None
    tls = ""
    if certificate:
        bundle = directory / "haproxy.pem"
        bundle.write_bytes(b"".join(Path(name).read_bytes() for name in certificate))
        tls = f"bind 127.0.0.1:{https_port} ssl crt {bundle} alpn h2,http/1.1"
    config = directory / "haproxy.cfg"
    config.write_text(
        _HAPROXY.format(http_port=http_port, tls=tls, backend_port=backend_port, http_lines=http_lines)
    )
    command = [binary, "-db", "-q", "-f", str(config)]
    others = [https_port] if https_port else []
    with running(command, directory / "haproxy.log", http_port, also=others) as process:
        yield Haproxy(http_port, https_port, process.pid)


_HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{http_port}
    {tls}
    {http_lines}
    default_backend back
backend back
    server one 127.0.0.1:{backend_port}
"""
