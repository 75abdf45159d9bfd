"""What other libraries' errors mean, in the words of the engine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.engine.dialer.tls import describe
from llm_pool.engine.exchange import Exchange
from llm_pool.exceptions import (
    ConnectFailed,
    DNSFailed,
    LLMPoolError,
    ProtocolError,
    ReadFailed,
    TLSFailed,
    reason,
)

__all__ = ["broken_off", "connect_failure", "invalid_response", "tls_failure"]


def connect_failure(error: Exception, origin: Origin, proxy: Proxy | None, uds: str | None) -> ConnectFailed:
    """Why no connection could be made, by what first went wrong."""
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ConnectFailed):
            return cause
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, origin)
        if isinstance(cause, socket.gaierror):
            host = origin.host if proxy is None else proxy.host
            return DNSFailed(f"the name {host!r} has no address: {reason(cause)}")
    systems = [cause for cause in causes if isinstance(cause, OSError) and cause.errno]
    first = systems[-1] if systems else causes[-1]
    if origin.scheme == "https" and isinstance(first, (ConnectionResetError, ConnectionAbortedError)):
        return tls_failure(first, origin)
    through = f" through the proxy {proxy}" if proxy is not None else ""
    through = f" at {uds}" if uds is not None else through
    return ConnectFailed(f"no connection to {origin}{through}: {reason(first)}")


def tls_failure(error: Exception, origin: Origin) -> TLSFailed:
    """Why the handshake failed. An end in the middle of it has many names."""
    if isinstance(error, ssl.SSLError) and not (error.reason or "").startswith("UNEXPECTED_EOF"):
        return TLSFailed(f"no TLS connection to {origin}: {describe(error)}")
    return TLSFailed(f"no TLS connection to {origin}: {describe(ConnectionError())}")


def broken_off(exchange: Exchange, error: Exception) -> LLMPoolError:
    """The server has closed the connection, before its response or in the middle of it."""
    origin = exchange.request.origin
    system = next((cause for cause in _chain(error) if isinstance(cause, OSError) and cause.errno), None)
    why = f" ({type(system).__name__}: {system})" if system is not None else ""
    if not exchange.status:
        return ReadFailed(f"{origin} closed the connection without an answer{why}")
    return ProtocolError(f"{origin} closed the connection before the response was complete{why}")


def invalid_response(exchange: Exchange, error: Exception) -> ProtocolError:
    """The server has broken the rules of HTTP."""
    return ProtocolError(f"{exchange.request.origin} sent no valid HTTP: {error}")


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """The error, and what led to it. (httpcore raises ``from None``, but the context stays.)"""
    seen: set[int] = set()
    while isinstance(error, Exception) and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
