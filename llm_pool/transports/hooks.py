"""The methods of httpx and httpcore through which requests go: where mocks and instrumentation hook in."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import Any, NamedTuple

import httpcore
import httpx

__all__ = [
    "ASYNC_HOOK_POINTS",
    "ASYNC_POOL",
    "HOOK_NAMES",
    "SYNC_HOOK_POINTS",
    "SYNC_POOL",
    "HookPoint",
    "are_stock",
]


class HookPoint(NamedTuple):
    """A method: the class that has it, its name, and the module in which it is written."""

    place: type
    name: str
    module: str


ASYNC_POOL = HookPoint(
    httpcore.AsyncConnectionPool, "handle_async_request", "httpcore._async.connection_pool"
)
SYNC_POOL = HookPoint(httpcore.ConnectionPool, "handle_request", "httpcore._sync.connection_pool")

# Where respx, pytest-httpx, vcrpy, OpenTelemetry, Sentry and others hook in.
_OF_CLIENTS = ("request", "send", "_send_single_request", "_transport_for_url")
ASYNC_HOOK_POINTS = (
    *(HookPoint(httpx.AsyncClient, name, "httpx._client") for name in _OF_CLIENTS),
    HookPoint(httpx.AsyncHTTPTransport, "handle_async_request", "httpx._transports.default"),
    ASYNC_POOL,
)
SYNC_HOOK_POINTS = (
    *(HookPoint(httpx.Client, name, "httpx._client") for name in _OF_CLIENTS),
    HookPoint(httpx.HTTPTransport, "handle_request", "httpx._transports.default"),
    SYNC_POOL,
)
HOOK_NAMES = frozenset(point.name for point in ASYNC_HOOK_POINTS + SYNC_HOOK_POINTS)


def are_stock(points: Iterable[HookPoint]) -> bool:
    """Whether each method is the library's own. Finds those replaced before this module's import too."""
    # Wrappers copy names and modules, but not the namespace in which they were written.
    for place, name, module in points:
        function: Any = place.__dict__[name]
        if type(function) is not FunctionType or function.__globals__["__name__"] != module:
            return False
    return True
