"""Whether somebody stands between httpx and the wire: mocks, instrumentation, a client's own hooks."""

from __future__ import annotations

import httpx

from .asynchronous import AsyncTransport
from .auth import KeyAuth
from .hook_points import ASYNC_HOOK_POINTS, SYNC_HOOK_POINTS, are_stock
from .synchronous import Transport

__all__ = ["is_plain"]

_NAMES = frozenset(point.name for point in ASYNC_HOOK_POINTS + SYNC_HOOK_POINTS)


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
        and are_stock(ASYNC_HOOK_POINTS if isinstance(client, httpx.AsyncClient) else SYNC_HOOK_POINTS)
    )
