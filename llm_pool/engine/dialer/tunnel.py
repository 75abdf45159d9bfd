"""Opens tunnels through proxies: CONNECT (RFC 9110, section 9.3.6) and SOCKS 5 (RFC 1928)."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from llm_pool.exceptions import ProxyFailed, reason
from llm_pool.redaction import without_frames

from ..closing import abort
from ..config import Origin
from .proxy import HAS_SOCKS, Proxy, authority
from .tls import TLS_CLOSE_SECONDS, describe, server_name

if HAS_SOCKS:  # an optional dependency; here, so that it is not imported during a call
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy as SocksProxy

__all__ = ["CANNOT_FORCE_CLOSE", "open_tls_tunnel", "open_tunnel", "start_tls_to"]

MAX_RESPONSE = 16 * 1024  # bytes of the response to CONNECT that are read
MAX_SHOWN = 200  # characters of an unexpected response that an error quotes
HEAD_END = re.compile(rb"\r?\n\r?\n")  # a recipient may accept a bare LF (RFC 9112, section 2.2)
INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")
SUCCESS = re.compile(rb"HTTP/1\.[01] 2\d\d\b")
NEEDS_LOGIN = re.compile(rb"HTTP/1\.[01] 407\b")
CHALLENGE = re.compile(rb"^proxy-authenticate:[ \t]*([\w-]+)", re.IGNORECASE | re.MULTILINE)
SOCKS_SECONDS = 24 * 60 * 60.0  # python_socks needs a timeout; the dial has its own, which is shorter

# asyncio's method for TLS in TLS raises TypeError: https://github.com/python/cpython/issues/113214
CANNOT_FORCE_CLOSE = sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)

Receive = Callable[[], Awaitable[bytes]]


async def open_tunnel(sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    """Open a tunnel to ``origin`` through ``proxy``. ``sock`` is connected to the proxy, without TLS.

    Raises ProxyFailed if the proxy opens no tunnel. The message quotes the first line of the proxy's
    response, if there is one.
    """
    if proxy.scheme == "socks5":
        await _open_socks(sock, proxy, origin)
        return
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, _connect_request(proxy, origin))
        response = await _read_response(partial(loop.sock_recv, sock, 4096))
    except OSError as error:
        raise _failure(proxy, origin, reason(error)) from without_frames(error)
    _require_success(response, proxy, origin)


async def open_tls_tunnel(
    sock: socket.socket, proxy: Proxy, origin: Origin, context: ssl.SSLContext
) -> asyncio.Transport:
    """Open a tunnel through a proxy to which the connection uses TLS. Return the transport of the tunnel.

    ``sock`` is connected to the proxy; ``context`` is for the proxy. Raises ProxyFailed, as ``open_tunnel``.
    """
    reader = asyncio.StreamReader()
    transport = await start_tls_to(proxy, sock, context, lambda: asyncio.StreamReaderProtocol(reader))
    if CANNOT_FORCE_CLOSE and isinstance(transport, asyncio.Transport):  # uvloop's class is unrelated
        transport._force_close = lambda _: transport.abort()  # type: ignore[attr-defined]
    try:
        transport.write(_connect_request(proxy, origin))
        response = await _read_response(partial(reader.read, 4096))
        _require_success(response, proxy, origin)
    except OSError as error:
        abort(transport)
        raise _failure(proxy, origin, reason(error)) from without_frames(error)
    except BaseException:
        abort(transport)
        raise
    return transport


async def start_tls_to(
    proxy: Proxy, sock: socket.socket, context: ssl.SSLContext, make_protocol: Callable[[], asyncio.Protocol]
) -> asyncio.Transport:
    """Do the TLS handshake with a proxy. Raises ProxyFailed if it fails."""
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            make_protocol,
            sock=sock,
            ssl=context,
            server_hostname=server_name(proxy.host),
            ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
        )
    except (OSError, ValueError) as error:  # ValueError: no certificate can contain the name
        raise ProxyFailed(f"no TLS connection to the proxy {proxy}: {describe(error)}") from error
    return transport


async def _open_socks(sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    user, password = proxy.login or (None, None)
    before: Any = _ConnectedProxy(sock)
    socks = SocksProxy(ProxyType.SOCKS5, proxy.host, proxy.port, user, password, rdns=True, forward=before)
    try:
        await socks.connect(origin.host, origin.port, timeout=SOCKS_SECONDS)
    except ProxyError as error:
        raise _failure(proxy, origin, f"it answered {str(error)!r}") from without_frames(error)
    except OSError as error:
        raise _failure(proxy, origin, reason(error)) from without_frames(error)


class _ConnectedProxy:
    """Takes the place of python_socks's proxy before the SOCKS proxy: returns a socket that is connected."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


def _connect_request(proxy: Proxy, origin: Origin) -> bytes:
    target = authority(origin.host, origin.port).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % target, b"Host: %b" % target]
    lines += [b"%b: %b" % header for header in proxy.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _read_response(receive: Receive) -> bytes:
    """Return the head of the proxy's final response to CONNECT.

    Skips interim responses (RFC 9110, section 15.2). No bytes follow the head: in a tunnel the client sends
    first. Returns only a part of the head if the proxy closes the connection or does not speak HTTP, or if
    more than ``MAX_RESPONSE`` bytes come.
    """
    head, received = b"", 0
    while True:
        end = HEAD_END.search(head)
        if end is not None and INTERIM.match(head):
            head = head[end.end() :]
            continue
        if end is not None or received >= MAX_RESPONSE or not head.startswith(b"HTTP/"[: len(head)]):
            return head
        piece = await receive()
        if not piece:
            return head
        head += piece
        received += len(piece)


def _require_success(response: bytes, proxy: Proxy, origin: Origin) -> None:
    end = HEAD_END.search(response)
    if SUCCESS.match(response) and end is not None and end.end() == len(response):
        return
    shown = proxy.redact(response)
    line = shown.partition(b"\n")[0].rstrip(b"\r").decode("latin-1")[:MAX_SHOWN]
    why = f"it answered {line!r}" if line else "it closed the connection"
    offered = [name.decode() for name in CHALLENGE.findall(shown)]
    if NEEDS_LOGIN.match(shown) and offered and b"basic" not in shown.lower():
        why += f"; it accepts only {' and '.join(offered)}, and the pool can only do Basic"
    raise _failure(proxy, origin, why)


def _failure(proxy: Proxy, origin: Origin, why: str) -> ProxyFailed:
    return ProxyFailed(f"the proxy {proxy} opened no tunnel to {origin}: {why}")
