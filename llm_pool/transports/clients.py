"""The httpx clients of a pool, and the API key on their requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from typing import Self

import httpx

from .hooks import ASYNC_HOOK_POINTS, HOOK_NAMES, SYNC_HOOK_POINTS, are_stock
from .transport import AsyncTransport, Transport

__all__ = ["AsyncClient", "Client", "KeyAuth", "is_unhooked"]


class Redirects:
    """Removes the pool's headers from a redirect to another origin; httpx removes ``Authorization`` only."""

    def _redirect_headers(self, request: httpx.Request, url: httpx.URL, method: str) -> httpx.Headers:
        headers: httpx.Headers = super()._redirect_headers(request, url, method)  # type: ignore[misc]
        if _origin(url) != _origin(request.url):
            for name in request.extensions.get("llm_pool_added", ()):
                headers.pop(name, None)
        return headers


class AsyncClient(Redirects, httpx.AsyncClient):
    """An ``httpx.AsyncClient`` that all callers of a pool share: closing it does nothing; close the pool."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave it open."""

    async def aclose(self) -> None:
        """Leave it open."""


class Client(Redirects, httpx.Client):
    """``AsyncClient`` for threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave it open."""

    def close(self) -> None:
        """Leave it open."""


class KeyAuth(httpx.Auth):
    """Adds ``headers(key)`` to requests to the pool's origin, except where they have headers of their own.

    A header that equals one of the ``defaults`` is not the request's own. ``key`` or ``akey`` is called for
    each request, so that a rotated key takes effect, unless the request has the extension ``llm_pool_key``.
    Requests to other origins, by an absolute URL or a redirect (see ``Redirects``), get none of the headers.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: Callable[[], str | None],
        akey: Callable[[], Awaitable[str | None]],
        headers: Callable[[str | None], Mapping[str, str]],
        key_headers: Iterable[str],
        defaults: Mapping[str, str],
    ) -> None:
        self._origin = _origin(httpx.URL(base_url))
        self._key = key
        self._akey = akey
        self._headers = headers
        self._key_headers = frozenset(key_headers)
        self._defaults = defaults

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            self._add(request, self._key() if self._wants_key(request) else _known(request))
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            self._add(request, await self._akey() if self._wants_key(request) else _known(request))
        yield request

    def _wants_key(self, request: httpx.Request) -> bool:
        """Whether the request has no key yet. An SDK's has, and the pool may have none to give."""
        if "llm_pool_key" in request.extensions:
            return False
        return not any(name in request.headers for name in self._key_headers)

    def _add(self, request: httpx.Request, key: str | None) -> None:
        there = request.headers
        added = {
            name: value
            for name, value in self._headers(key).items()
            if name not in there or there[name] == self._defaults.get(name)
        }
        there.update(added)
        request.extensions = {**request.extensions, "llm_pool_added": tuple(added)}


def _known(request: httpx.Request) -> str | None:
    key: str | None = request.extensions.get("llm_pool_key")
    return key


def is_unhooked(client: httpx.AsyncClient | httpx.Client) -> bool:
    """Whether nothing intercepts requests of ``client``: no mock, instrumentation, hook or other transport.

    Only then may a call go straight to the engine, past httpx.
    """
    transport = client._transport
    return (
        type(transport) in (AsyncTransport, Transport)
        and not client._mounts
        and type(client._auth) is KeyAuth
        and not any(client._event_hooks.values())
        and HOOK_NAMES.isdisjoint(client.__dict__)
        and HOOK_NAMES.isdisjoint(transport.__dict__)
        and are_stock(ASYNC_HOOK_POINTS if isinstance(client, httpx.AsyncClient) else SYNC_HOOK_POINTS)
    )


def _origin(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    return url.raw_scheme, url.raw_host, url.port
