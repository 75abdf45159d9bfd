"""Chooses the proxy for an origin, and opens a tunnel through it (CONNECT; RFC 9110, section 9.3.6).

A pool without a proxy setting uses the environment: ``https_proxy`` or ``http_proxy``, by the scheme of the
origin, or else ``all_proxy``. The names can be in upper case too; a variable in lower case comes first.

The environment's proxy is not used for ``localhost``, names below it and loopback addresses, nor for the
entries of ``NO_PROXY``, each with an optional ``:port``:

``example.com``          the name and every name below it; also written ``.example.com`` or ``*.example.com``
``10.0.0.0/8``, ``::1``  networks and addresses; only a host that is an address is compared with them
``*``                    everything
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import re
import socket
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from llm_pool.exceptions import DNSFailed, ProxyFailed, reason
from llm_pool.redaction import without_frames

from ..config import Origin, is_loopback
from ..request import Headers
from .resolver import check_host

__all__ = ["Proxy", "open_tunnel", "parse_proxy", "proxy_for"]

MAX_RESPONSE = 16 * 1024  # bytes of the response to CONNECT that are read
MAX_SHOWN = 200  # characters of an unexpected response that an error quotes
HEAD_END = b"\r\n\r\n"
SUCCESS = re.compile(rb"HTTP/1\.[01] 2\d\d\b")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    ``host``         its name or address
    ``port``         its port
    ``credentials``  the value of the header Proxy-Authorization, or None
    ``variable``     the environment variable that its URL comes from, or None
    """

    host: str
    port: int
    credentials: bytes | None = field(default=None, repr=False)
    variable: str | None = None

    @property
    def headers(self) -> Headers:
        """The headers that each request to the proxy carries."""
        return [(b"Proxy-Authorization", self.credentials)] if self.credentials else []

    def redact(self, response: bytes) -> bytes:
        """Return ``response`` with ``***`` in place of the credentials, which a proxy can repeat."""
        return response.replace(self.credentials.split()[-1], b"***") if self.credentials else response

    def __str__(self) -> str:
        return _authority(self.host, self.port)


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """Return the proxy for an origin, or None to connect directly.

    ``url``  the proxy's URL; ``""`` for no proxy; None to use the proxy from the environment

    Raises ProxyFailed if the URL is not that of an HTTP proxy (see ``parse_proxy``).
    """
    variable = None
    if url is None:
        variable, url = _from_environment(origin)
    return parse_proxy(url, variable) if url else None


def parse_proxy(url: str, variable: str | None = None) -> Proxy:
    """Return the proxy for a URL ``http://user:password@host:port``. Only the host is required.

    ``variable``: the environment variable that the URL comes from, or None. Raises ProxyFailed if the URL has
    another form. The error does not show the password.
    """
    which = f"the environment variable {variable}" if variable else "the proxy's URL"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or 80
        check_host(host, port)
    except (ValueError, DNSFailed):  # the message of either error can show a part of the password
        raise ProxyFailed(f"{which} is not of the form http://host:port") from None
    if parts.scheme != "http":
        raise ProxyFailed(f"{which} is {parts.scheme}://{host}, and not of the form http://host:port")
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(host, port, credentials, variable)


def _from_environment(origin: Origin) -> tuple[str | None, str | None]:
    """Return the name and the value of the environment variable with the proxy for ``origin``.

    The value is None if no such variable is set. Both are None if ``origin`` is on a loopback host or matches
    an entry of ``NO_PROXY``.
    """
    proxies = urllib.request.getproxies_environment()
    host = origin.host.lower().rstrip(".")
    if is_loopback(host) or _is_exempt(host, origin.port, proxies.get("no", "")):
        return None, None
    variable = f"{origin.scheme if proxies.get(origin.scheme) else 'all'}_proxy"
    value = proxies.get(variable.removesuffix("_proxy"))
    return (variable if os.environ.get(variable) else variable.upper()), value


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        target, only_port = _split_port(entry)
        if only_port and only_port != str(port):
            continue
        if target == "*":
            return True
        if address is not None:
            network = _network(target)
            if network is not None and address in network:
                return True
        elif (name := target.removeprefix("*").strip(".")) and f".{host}".endswith(f".{name}"):
            return True
    return False


def _split_port(entry: str) -> tuple[str, str]:
    """Split ``host:80``, ``[::1]:80`` or ``::1`` into host and port. The port is ``""`` if there is none."""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    return (entry, "") if entry.count(":") > 1 else (entry.partition(":")[0], entry.partition(":")[2])


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


async def open_tunnel(sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    """Open a tunnel to ``origin`` through ``proxy``. ``sock`` is connected to the proxy.

    Raises ProxyFailed if the proxy opens no tunnel. The message quotes the first line of the proxy's
    response, if there is one.
    """
    try:
        await asyncio.get_running_loop().sock_sendall(sock, _connect_request(proxy, origin))
        response = await _read_head(sock)
    except OSError as error:
        message = f"the proxy {proxy} opened no tunnel to {origin}: {reason(error)}"
        raise ProxyFailed(message) from without_frames(error)
    if not (SUCCESS.match(response) and response.endswith(HEAD_END)):
        line = proxy.redact(response).split(b"\r\n", 1)[0].decode("latin-1")[:MAX_SHOWN]
        cause = f"it answered {line!r}" if line else "it closed the connection"
        raise ProxyFailed(f"the proxy {proxy} opened no tunnel to {origin}: {cause}")


def _connect_request(proxy: Proxy, origin: Origin) -> bytes:
    authority = _authority(origin.host, origin.port).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    lines += [b"%b: %b" % header for header in proxy.headers]
    return b"\r\n".join(lines) + HEAD_END


async def _read_head(sock: socket.socket) -> bytes:
    """Return the head of the proxy's response to CONNECT. No bytes follow it: in TLS the client sends first.

    Returns only a part of the head if the proxy closes the connection or does not speak HTTP, or if the head
    is longer than ``MAX_RESPONSE``.
    """
    head = b""
    while HEAD_END not in head and len(head) < MAX_RESPONSE:
        piece = await asyncio.get_running_loop().sock_recv(sock, 4096)
        head += piece
        if not piece or not head.startswith(b"HTTP/"[: len(head)]):
            break
    return head


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
