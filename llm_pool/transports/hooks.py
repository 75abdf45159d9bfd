"""The methods of httpx and httpcore that send requests: mocks and instrumentation replace them."""

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
    "are_original",
]


class HookPoint(NamedTuple):
    """A method that mocks and instrumentation replace.

    ``owner``   the class that has it
    ``name``    its name
    ``module``  the module that defines the original
    """

    owner: type
    name: str
    module: str


ASYNC_POOL = HookPoint(
    httpcore.AsyncConnectionPool, "handle_async_request", "httpcore._async.connection_pool"
)
SYNC_POOL = HookPoint(httpcore.ConnectionPool, "handle_request", "httpcore._sync.connection_pool")

# What respx, pytest-httpx, vcrpy, OpenTelemetry, Sentry and others replace.
_CLIENT_METHODS = ("request", "send", "_send_single_request", "_transport_for_url")
ASYNC_HOOK_POINTS = (
    *(HookPoint(httpx.AsyncClient, name, "httpx._client") for name in _CLIENT_METHODS),
    HookPoint(httpx.AsyncHTTPTransport, "handle_async_request", "httpx._transports.default"),
    ASYNC_POOL,
)
SYNC_HOOK_POINTS = (
    *(HookPoint(httpx.Client, name, "httpx._client") for name in _CLIENT_METHODS),
    HookPoint(httpx.HTTPTransport, "handle_request", "httpx._transports.default"),
    SYNC_POOL,
)
HOOK_NAMES = frozenset(point.name for point in ASYNC_HOOK_POINTS + SYNC_HOOK_POINTS)


def are_original(points: Iterable[HookPoint]) -> bool:
    """Whether each method is the library's original. Detects also those replaced before this import."""
    # functools.wraps copies __name__ and __module__ to a wrapper, but not __globals__.
    for owner, name, module in points:
        function: Any = owner.__dict__[name]
        if type(function) is not FunctionType or function.__globals__["__name__"] != module:
            return False
    return True
