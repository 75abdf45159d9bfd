"""Which proxy, if any, leads to an origin; and the tunnel through it (RFC 9110, section 9.3.6).

Without a proxy of its own a pool goes by ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY``, in lower case
first. They are never used for ``localhost``, names beneath it and loopback addresses, nor for what
``NO_PROXY`` exempts: names with all that is beneath them (``example.com``, ``.example.com``,
``*.example.com``), addresses and networks (``10.0.0.0/8``, ``fd00::/8``; names are not looked up for this),
each with a ``:port`` if need be, or everything (``*``).
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

MAX_ANSWER = 16 * 1024  # bytes
MAX_SHOWN = 200  # characters of a strange answer that a message repeats
HEAD_END = b"\r\n\r\n"
OPENED = re.compile(rb"HTTP/1\.[01] 2\d\d\b")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: where it is, and the header with its credentials.

    ``variable`` is the environment variable that named it, where one did.
    """

    host: str
    port: int
    credentials: bytes | None = field(default=None, repr=False)
    variable: str | None = None

    @property
    def headers(self) -> Headers:
        """What goes to the proxy with every request."""
        return [(b"Proxy-Authorization", self.credentials)] if self.credentials else []

    def redact(self, answer: bytes) -> bytes:
        """An answer of the proxy's with stars for the credentials, which it may repeat."""
        return answer.replace(self.credentials.split()[-1], b"***") if self.credentials else answer

    def __str__(self) -> str:
        return _authority(self.host, self.port)


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """The proxy for an origin: ``url``, none for ``""``, or what the environment says for None."""
    variable = None
    if url is None:
        variable, url = _from_environment(origin)
    return parse_proxy(url, variable) if url else None


def parse_proxy(url: str, variable: str | None = None) -> Proxy:
    """Raises ProxyFailed for a proxy of a kind not spoken here. The message does not show the password."""
    which = f"the environment variable {variable}" if variable else "the proxy's URL"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or 80
        check_host(host, port)
    except (ValueError, DNSFailed):  # whose message may show a piece of the password
        raise ProxyFailed(f"{which} is not of the form http://host:port") from None
    if parts.scheme != "http":
        raise ProxyFailed(f"{which} is {parts.scheme}://{host}, and not of the form http://host:port")
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(host, port, credentials, variable)


def _from_environment(origin: Origin) -> tuple[str | None, str | None]:
    """The variable that holds for the origin, and its value."""
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
    """``host:80``, ``[::1]:80`` and ``::1`` in two."""
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
    """Ask the proxy on ``sock`` for a tunnel to ``origin``. Raises ProxyFailed with the proxy's answer."""
    try:
        await asyncio.get_running_loop().sock_sendall(sock, _connect_request(proxy, origin))
        answer = await _read_head(sock)
    except OSError as error:
        why = f"the proxy {proxy} opened no tunnel to {origin}: {reason(error)}"
        raise ProxyFailed(why) from without_frames(error)
    if not (OPENED.match(answer) and answer.endswith(HEAD_END)):
        answer = proxy.redact(answer)
        line = answer.split(b"\r\n", 1)[0].decode("latin-1")[:MAX_SHOWN]
        said = f"it answered {line!r}" if line else "it closed the connection"
        raise ProxyFailed(f"the proxy {proxy} opened no tunnel to {origin}: {said}")


def _connect_request(proxy: Proxy, origin: Origin) -> bytes:
    authority = _authority(origin.host, origin.port).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    lines += [b"%b: %b" % header for header in proxy.headers]
    return b"\r\n".join(lines) + HEAD_END


async def _read_head(sock: socket.socket) -> bytes:
    """The head of an answer, or what there is of one when the proxy closes or speaks no HTTP.

    Nothing may follow it: in TLS the client speaks first.
    """
    answer = b""
    while HEAD_END not in answer and len(answer) < MAX_ANSWER:
        piece = await asyncio.get_running_loop().sock_recv(sock, 4096)
        answer += piece
        if not piece or not answer.startswith(b"HTTP/"[: len(answer)]):
            break
    return answer


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
