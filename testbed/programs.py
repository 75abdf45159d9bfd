"""Run installed servers (nginx, nghttpd, haproxy) on free loopback ports."""

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

__all__ = [
    "Haproxy",
    "Nghttpd",
    "Nginx",
    "ProgramMissing",
    "haproxy",
    "nghttpd",
    "nginx",
    "nginx_proxy",
    "program",
]

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
    """The path of a program. Raises ProgramMissing.

    Searches PATH and the sbin folders, which are not in every user's PATH.
    """
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    path = shutil.which(name, path=places)
    if path is None:
        raise ProgramMissing(f"{name} is not installed")
    return path


class _WebServer:
    """The URLs of a program that listens for HTTP and, with a certificate, for HTTPS."""

    http_port: int
    https_port: int | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def https_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"


@dataclass
class Nginx(_WebServer):
    """A running nginx. It answers each POST and GET with the same chat completion.

    ``http_port``   for HTTP
    ``https_port``  for HTTPS; None without a certificate
    ``uds``         the path of its Unix socket, for HTTP
    ``body``        of each response
    ``pid``         of its process
    """

    http_port: int
    https_port: int | None
    uds: str
    body: bytes
    pid: int
    _status_port: int
    _probes: int
    """Connections that ``running`` made to check that nginx listens."""
    _status_requests: int = 0

    def counts(self) -> tuple[int, int]:
        """(connections accepted, requests served) so far, without those of this method and of ``running``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_port}/", timeout=5) as response:
            accepted, _, requests = response.read().split(b"\n")[2].split()
        self._status_requests += 1
        return (
            int(accepted) - self._status_requests - self._probes,
            int(requests) - self._status_requests,
        )


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
    """Run one nginx worker for as long as the block lasts.

    It sends a completion of ``size`` bytes, or ``body``, over HTTP, a Unix socket and (with ``certificate``)
    HTTPS; with ``http2``, HTTPS offers HTTP/2 too. Raises ProgramMissing.
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
    """A chat completion of exactly ``size`` bytes of JSON (at least 252); without a size, a short one."""
    plain = COMPLETION % b"Hello!"
    return COMPLETION % (b"Hello!" + b"x" * max(0, (size or 0) - len(plain)))


# One process that does not change its user, so that it can read a folder that only this user can read. nginx
# responds to a POST to a file with 405; error_page makes that a 200 with the completion.
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


@contextlib.contextmanager
def nginx_proxy(directory: Path, backend_port: int, *, read_timeout: int, silent_port: int) -> Iterator[str]:
    """Run nginx in front of a loopback port, as in front of a site, while the block lasts. Yield its URL.

    It cuts a response off when the backend sends nothing for ``read_timeout`` seconds. The path
    ``/silent`` leads to ``silent_port`` instead. Raises ProgramMissing.
    """
    binary = program("nginx")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        _NGINX_PROXY.format(
            directory=directory,
            port=port,
            backend_port=backend_port,
            silent_port=silent_port,
            read_timeout=read_timeout,
        )
    )
    command = [binary, "-p", str(directory), "-e", "stderr", "-c", str(config)]
    with running(command, directory / "nginx.log", port):
        yield f"http://127.0.0.1:{port}"


_NGINX_PROXY = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_read_timeout {read_timeout};
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{backend_port}; }}
        location /silent {{ proxy_pass http://127.0.0.1:{silent_port}; }}
    }}
}}
"""


@dataclass(frozen=True)
class Nghttpd:
    """A running nghttpd (HTTP/2).

    ``port``    where it listens
    ``scheme``  "https", or "http" without a certificate
    ``root``    the folder with the files that it serves
    ``pid``     of its process
    """

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
    """Run nghttpd for as long as the block lasts: HTTP/2 over TLS, or with prior knowledge (RFC 9113, 3.3).

    ``/completion.json`` is ``body``, or a chat completion. ``options`` are further arguments of the program.
    Raises ProgramMissing.
    """
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
class Haproxy(_WebServer):
    """A running haproxy in front of a backend.

    ``http_port``   for HTTP
    ``https_port``  for HTTPS; None without a certificate
    ``pid``         of its process
    """

    http_port: int
    https_port: int | None
    pid: int


@contextlib.contextmanager
def haproxy(
    directory: Path, backend_port: int, *, certificate: CertificateFiles | None = None, http_lines: str = ""
) -> Iterator[Haproxy]:
    """Run haproxy in HTTP mode in front of a loopback port, for as long as the block lasts.

    ``http_lines`` are added to the configuration of its frontend. Raises ProgramMissing.
    """
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
