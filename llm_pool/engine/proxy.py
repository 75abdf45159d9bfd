"""Which proxy, if any, leads to an origin; and the tunnel through it (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import socket
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from .config import Origin
from .errors import ProxyFailed
from .request import Headers

__all__ = ["Proxy", "open_tunnel", "parse_proxy", "proxy_for"]

MAX_ANSWER = 16 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: where it is, and the header that opens its door."""

    host: str
    port: int
    credentials: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> Headers:
        """What goes to the proxy with every request."""
        return [(b"Proxy-Authorization", self.credentials)] if self.credentials else []

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """The proxy for an origin: ``url``, none for ``""``, or what the environment says for None."""
    if url is None:
        url = _from_environment(origin)
    return parse_proxy(url) if url else None


def parse_proxy(url: str) -> Proxy:
    """Raises ProxyFailed for a proxy of a kind not spoken here. The message does not show the password."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyFailed(f"the proxy {parts.scheme}://{parts.hostname} is not of the form http://host:port")
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(parts.hostname, parts.port or 80, credentials)


def _from_environment(origin: Origin) -> str | None:
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
        f"{origin.host}:{origin.port}", proxies
    ):
        return None
    return proxies.get(origin.scheme) or proxies.get("all")


async def open_tunnel(sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    """Ask the proxy on ``sock`` for a tunnel to ``origin``. Raises ProxyFailed with the proxy's answer."""
    loop = asyncio.get_running_loop()
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1".encode(), f"Host: {host}:{origin.port}".encode()]
    lines += [b"%b: %b" % header for header in proxy.headers]
    await loop.sock_sendall(sock, b"\r\n".join(lines) + b"\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        # One byte past the head would belong to the tunnel, so the head is peeked at before it is taken.
        piece = await loop.sock_recv(sock, 1)
        if not piece or len(answer) > MAX_ANSWER:
            raise ProxyFailed(f"the proxy {proxy} closed the connection without opening a tunnel to {origin}")
        answer += piece
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    code = status.split(" ")[1:2]
    if not status.startswith("HTTP/1.") or code != ["200"]:
        raise ProxyFailed(f"the proxy {proxy} opened no tunnel to {origin}: it answered {status!r}")
