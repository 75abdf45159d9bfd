"""The methods of httpx and httpcore that send requests: mocks and instrumentation replace them."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, NamedTuple

import httpcore
import httpx

__all__ = ["ASYNC_POOL", "SYNC_POOL", "HookDetector", "HookPoints"]


class HookPoint(NamedTuple):
    """A method that mocks and instrumentation replace.

    ``members``  a live view of the members of the class that has the method
    ``name``     the method's name
    ``module``   the module that defines the original method
    """

    members: Mapping[str, Any]
    name: str
    module: str


class HookPoints:
    """Methods of httpx or httpcore, and whether they are the library's original ones."""

    __slots__ = ("_originals", "_points")

    def __init__(self, *points: HookPoint) -> None:
        self._points = points
        self._originals: list[Any] = []  # the methods, when all were last found to be original

    def are_original(self) -> bool:
        """Return whether each method is the library's original.

        Returns False even if a method was replaced before this module was imported.
        """
        methods = [members[name] for members, name, _ in self._points]
        if methods == self._originals:
            return True
        for method, point in zip(methods, self._points, strict=True):
            # functools.wraps copies __name__ and __module__ to a wrapper, but not __globals__.
            if type(method) is not FunctionType or method.__globals__["__name__"] != point.module:
                return False
        self._originals = methods
        return True


_ASYNC_POOL = HookPoint(
    vars(httpcore.AsyncConnectionPool), "handle_async_request", "httpcore._async.connection_pool"
)
_SYNC_POOL = HookPoint(vars(httpcore.ConnectionPool), "handle_request", "httpcore._sync.connection_pool")
ASYNC_POOL = HookPoints(_ASYNC_POOL)
SYNC_POOL = HookPoints(_SYNC_POOL)

# The methods that respx, pytest-httpx, vcrpy, OpenTelemetry, Sentry and others replace.
_CLIENT_METHODS = ("request", "send", "_send_single_request", "_transport_for_url")
ASYNC_HOOK_POINTS = HookPoints(
    *(HookPoint(vars(httpx.AsyncClient), name, "httpx._client") for name in _CLIENT_METHODS),
    HookPoint(vars(httpx.AsyncHTTPTransport), "handle_async_request", "httpx._transports.default"),
    _ASYNC_POOL,
)
SYNC_HOOK_POINTS = HookPoints(
    *(HookPoint(vars(httpx.Client), name, "httpx._client") for name in _CLIENT_METHODS),
    HookPoint(vars(httpx.HTTPTransport), "handle_request", "httpx._transports.default"),
    _SYNC_POOL,
)
HOOK_NAMES = frozenset({*_CLIENT_METHODS, "handle_async_request", "handle_request"})
NO_EVENT_HOOKS: dict[str, list[Any]] = {"request": [], "response": []}


class HookDetector:
    """Detects whether anything intercepts or changes the requests of a client.

    Requests are intercepted by mocks, instrumentation, event hooks and mounted transports, and by a transport
    or authentication that has replaced the client's original. They are changed by what was set on the client
    since it was made: ``headers``, ``params`` and ``timeout``. If there is nothing of that, calls can be sent
    to the engine directly, without httpx.
    """

    __slots__ = ("_auth", "_client", "_headers", "_params", "_points", "_timeout", "_transport")

    def __init__(self, client: httpx.AsyncClient | httpx.Client) -> None:
        self._client = client
        self._transport = client._transport
        self._auth = client._auth
        self._headers = list(client._headers._list)
        self._params = client._params
        self._timeout = client._timeout
        self._points = ASYNC_HOOK_POINTS if isinstance(client, httpx.AsyncClient) else SYNC_HOOK_POINTS

    def is_hooked(self) -> bool:
        """Return whether a request of the client would be intercepted or changed now."""
        client = self._client
        return not (
            client._transport is self._transport
            and client._auth is self._auth
            and client._headers._list == self._headers
            and client._params is self._params
            and client._timeout is self._timeout
            and not client._mounts
            and client._event_hooks == NO_EVENT_HOOKS
            and HOOK_NAMES.isdisjoint(client.__dict__)
            and HOOK_NAMES.isdisjoint(self._transport.__dict__)
            and self._points.are_original()
        )
