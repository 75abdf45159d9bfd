"""Translates errors of other libraries into errors of this package, with the texts that the engine uses."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.engine.dialer.tls import describe
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.tls_alerts import client_cert_error
from llm_pool.exceptions import (
    ConnectFailed,
    DNSFailed,
    InvalidRequest,
    LLMPoolError,
    ProtocolError,
    ProxyFailed,
    ReadFailed,
    TLSFailed,
    in_parentheses,
    reason,
)

__all__ = [
    "connect_error",
    "disconnect_error",
    "protocol_error",
    "proxy_tls_error",
    "request_error",
    "tls_error",
    "tunnel_error",
]


def connect_error(error: Exception, origin: Origin, proxy: Proxy | None, uds: str | None) -> ConnectFailed:
    """Return the error for a dial that failed with ``error``: ConnectFailed, TLSFailed or DNSFailed.

    The class and the text follow the first ConnectFailed, SSLError or gaierror in ``error`` and its causes,
    or the root cause if there is none of these. A ConnectFailed is returned unchanged. ``proxy`` and ``uds``:
    the proxy and the Unix domain socket of the dial, or None.
    """
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ConnectFailed):
            return cause
        if isinstance(cause, ssl.SSLError):
            return tls_error(cause, origin)
        if isinstance(cause, socket.gaierror):
            host = origin.host if proxy is None else proxy.host
            return DNSFailed(f"the name {host!r} has no address: {reason(cause)}")
    system_errors = [cause for cause in causes if isinstance(cause, OSError) and cause.errno]
    root = system_errors[-1] if system_errors else causes[-1]
    if origin.scheme == "https" and isinstance(root, (ConnectionResetError, ConnectionAbortedError)):
        return tls_error(root, origin)
    route = f" through the proxy {proxy}" if proxy is not None else ""
    route = f" at {uds}" if uds is not None else route
    return ConnectFailed(f"no connection to {origin}{route}: {reason(root)}")


def tls_error(error: Exception, origin: Origin) -> TLSFailed:
    """Return the TLSFailed for a TLS handshake with ``origin`` that failed with ``error``."""
    return TLSFailed(f"no TLS connection to {origin}: {_describe_handshake(error)}")


def proxy_tls_error(error: Exception, proxy: Proxy) -> ProxyFailed:
    """Return the ProxyFailed for a TLS handshake with ``proxy`` that failed with ``error``."""
    return ProxyFailed(f"no TLS connection to the proxy {proxy}: {_describe_handshake(error)}")


def tunnel_error(origin: Origin, proxy: Proxy | None, why: str) -> ProxyFailed:
    """Return the ProxyFailed for a proxy that opened no tunnel to ``origin``.

    ``why`` is a clause such as "it closed the connection".
    """
    return ProxyFailed(f"the proxy {proxy} opened no tunnel to {origin}: {why}")


def request_error(error: Exception) -> InvalidRequest:
    """Return the InvalidRequest for a request that the library refused to send. ``error`` says why."""
    return InvalidRequest(f"the request cannot be sent as it is: {error}")


def disconnect_error(exchange: Exchange, error: Exception) -> LLMPoolError:
    """Return the error for a connection that the server closed before the end of the response.

    It is a ReadFailed if no head of a response has arrived, or a TLSFailed if the server refused the client's
    certificate. Otherwise it is a ProtocolError.
    """
    origin = exchange.request.origin
    system_errors = (cause for cause in _chain(error) if isinstance(cause, OSError) and cause.errno)
    cause = next(system_errors, None)
    why = in_parentheses(cause)
    if not exchange.status:
        no_answer = ReadFailed(f"{origin} closed the connection without an answer{why}")
        return client_cert_error(error, origin) or no_answer
    return ProtocolError(f"{origin} closed the connection before the response was complete{why}")


def protocol_error(exchange: Exchange, error: Exception) -> ProtocolError:
    """Return the ProtocolError for a response that is not valid HTTP. ``error`` says what is wrong."""
    return ProtocolError(f"{exchange.request.origin} sent no valid HTTP: {error}")


def _describe_handshake(error: Exception) -> str:
    tls_errors = (cause for cause in _chain(error) if isinstance(cause, ssl.SSLError))
    cause = next(tls_errors, None)
    # A server that closes during the handshake causes errors of several classes. All get the same text.
    if cause is None or (cause.reason or "").startswith("UNEXPECTED_EOF"):
        return describe(ConnectionError())
    return describe(cause)


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """Yield ``error`` and the exceptions behind it: of each its cause, or its context if it has no cause."""
    seen: set[int] = set()
    while isinstance(error, Exception) and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # httpcore raises some from None: only a context
