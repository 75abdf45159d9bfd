"""Whether somebody stands between httpx and the wire: mocks, instrumentation, a client's own hooks."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import httpcore
import httpx

from .asynchronous import AsyncTransport
from .auth import KeyAuth
from .synchronous import Transport

__all__ = ["is_plain"]

# Where respx, pytest-httpx, OpenTelemetry and Sentry hook in.
_ASYNC_DOORS: tuple[tuple[type, str], ...] = (
    (httpx.AsyncClient, "send"),
    (httpx.AsyncClient, "_transport_for_url"),
    (httpx.AsyncHTTPTransport, "handle_async_request"),
    (httpcore.AsyncConnectionPool, "handle_async_request"),
)
_SYNC_DOORS: tuple[tuple[type, str], ...] = (
    (httpx.Client, "send"),
    (httpx.Client, "_transport_for_url"),
    (httpx.HTTPTransport, "handle_request"),
    (httpcore.ConnectionPool, "handle_request"),
)


def is_plain(client: httpx.AsyncClient | httpx.Client) -> bool:
    """Whether a request sent by ``client`` would reach the engine with nobody looking on.

    Only then may a call take the short way to the engine, past httpx.
    """
    doors = _ASYNC_DOORS if isinstance(client, httpx.AsyncClient) else _SYNC_DOORS
    return (
        type(client._transport) in (AsyncTransport, Transport)
        and not client._mounts
        and type(client._auth) in (type(None), KeyAuth)
        and "send" not in client.__dict__
        and "handle_async_request" not in client._transport.__dict__
        and "handle_request" not in client._transport.__dict__
        and not any(client._event_hooks.values())
        and all(_is_stock(door.__dict__[name], door) for door, name in doors)
    )


def _is_stock(function: Any, door: type) -> bool:
    # Wrappers copy names and modules, but not the namespace in which they were written.
    return (
        type(function) is FunctionType
        and function.__globals__.get(door.__name__) is door
        and not hasattr(function, "__wrapped__")
    )
