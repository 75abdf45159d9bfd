"""Whether somebody stands between httpx and the wire: mocks, instrumentation, a client's own hooks."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import Any, NamedTuple

import httpcore
import httpx

from .asynchronous import AsyncTransport
from .auth import KeyAuth
from .synchronous import Transport

__all__ = ["is_plain"]


class _Door(NamedTuple):
    """A method through which every request goes, and the module in which it is written."""

    place: type
    name: str
    module: str


# Where respx, pytest-httpx, vcrpy, OpenTelemetry, Sentry and others hook in.
_ASYNC_DOORS = (
    _Door(httpx.AsyncClient, "request", "httpx._client"),
    _Door(httpx.AsyncClient, "send", "httpx._client"),
    _Door(httpx.AsyncClient, "_send_single_request", "httpx._client"),
    _Door(httpx.AsyncClient, "_transport_for_url", "httpx._client"),
    _Door(httpx.AsyncHTTPTransport, "handle_async_request", "httpx._transports.default"),
    _Door(httpcore.AsyncConnectionPool, "handle_async_request", "httpcore._async.connection_pool"),
)
_SYNC_DOORS = (
    _Door(httpx.Client, "request", "httpx._client"),
    _Door(httpx.Client, "send", "httpx._client"),
    _Door(httpx.Client, "_send_single_request", "httpx._client"),
    _Door(httpx.Client, "_transport_for_url", "httpx._client"),
    _Door(httpx.HTTPTransport, "handle_request", "httpx._transports.default"),
    _Door(httpcore.ConnectionPool, "handle_request", "httpcore._sync.connection_pool"),
)
_NAMES = frozenset(door.name for door in _ASYNC_DOORS + _SYNC_DOORS)


def is_plain(client: httpx.AsyncClient | httpx.Client) -> bool:
    """Whether a request sent by ``client`` would reach the engine with nobody looking on.

    Only then may a call take the short way to the engine, past httpx.
    """
    transport = client._transport
    return (
        type(transport) in (AsyncTransport, Transport)
        and not client._mounts
        and type(client._auth) is KeyAuth
        and not any(client._event_hooks.values())
        and _NAMES.isdisjoint(client.__dict__)
        and _NAMES.isdisjoint(transport.__dict__)
        and _are_stock(_ASYNC_DOORS if isinstance(client, httpx.AsyncClient) else _SYNC_DOORS)
    )


def _are_stock(doors: Iterable[_Door]) -> bool:
    # Wrappers copy names and modules, but not the namespace in which they were written.
    for place, name, module in doors:
        function: Any = place.__dict__[name]
        if type(function) is not FunctionType or function.__globals__["__name__"] != module:
            return False
    return True
