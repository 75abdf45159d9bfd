"""The methods of httpx and httpcore through which every request goes: where others hook in."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import Any, NamedTuple

import httpcore
import httpx

__all__ = ["ASYNC_DOORS", "ASYNC_POOL", "SYNC_DOORS", "SYNC_POOL", "Door", "are_stock"]


class Door(NamedTuple):
    """A method, and the module in which it is written."""

    place: type
    name: str
    module: str


ASYNC_POOL = Door(httpcore.AsyncConnectionPool, "handle_async_request", "httpcore._async.connection_pool")
SYNC_POOL = Door(httpcore.ConnectionPool, "handle_request", "httpcore._sync.connection_pool")

# Where respx, pytest-httpx, vcrpy, OpenTelemetry, Sentry and others hook in.
_OF_CLIENTS = ("request", "send", "_send_single_request", "_transport_for_url")
ASYNC_DOORS = (
    *(Door(httpx.AsyncClient, name, "httpx._client") for name in _OF_CLIENTS),
    Door(httpx.AsyncHTTPTransport, "handle_async_request", "httpx._transports.default"),
    ASYNC_POOL,
)
SYNC_DOORS = (
    *(Door(httpx.Client, name, "httpx._client") for name in _OF_CLIENTS),
    Door(httpx.HTTPTransport, "handle_request", "httpx._transports.default"),
    SYNC_POOL,
)


def are_stock(doors: Iterable[Door]) -> bool:
    """Whether nobody stands there: whoever hooked in first, before this module was imported, is seen too."""
    # Wrappers copy names and modules, but not the namespace in which they were written.
    for place, name, module in doors:
        function: Any = place.__dict__[name]
        if type(function) is not FunctionType or function.__globals__["__name__"] != module:
            return False
    return True
