"""The httpx clients of a pool, and the code that adds the API key to their requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, Self

import httpx

from .cookies import WithoutCookies
from .redirects import AsyncRedirects, Redirects

__all__ = ["AsyncClient", "Client", "KeyAuth"]


class _PoolClient:
    """A mixin for httpx clients. Without an ``auth`` of its own, a request uses ``auth``, a ``KeyAuth``.

    A request with its own ``auth``, None included, gets the pool's headers without those that carry a key. A
    request to another origin gets the user name and password of its URL, as httpx sends them.
    """

    def __init__(self, *, auth: KeyAuth, **options: Any) -> None:
        super().__init__(auth=auth, **options)  # type: ignore[call-arg]
        self._key_auth = auth

    def _build_request_auth(self, request: httpx.Request, auth: Any = httpx.USE_CLIENT_DEFAULT) -> httpx.Auth:
        chosen: httpx.Auth = super()._build_request_auth(request, auth)  # type: ignore[misc]
        if chosen is not self._key_auth:
            self._key_auth.add_keyless_headers(request)
        elif not self._key_auth.is_for(request):
            chosen = super()._build_request_auth(request, None)  # type: ignore[misc]
        return chosen


class AsyncClient(_PoolClient, WithoutCookies, AsyncRedirects, httpx.AsyncClient):
    """The ``httpx.AsyncClient`` that a pool's callers share. Closing it does nothing: close the pool."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Do nothing: the pool stays open."""

    async def aclose(self) -> None:
        """Do nothing: the pool stays open."""


class Client(_PoolClient, WithoutCookies, Redirects, httpx.Client):
    """The ``httpx.Client`` that a pool's callers share. Closing it does nothing: close the pool."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing: the pool stays open."""

    def close(self) -> None:
        """Do nothing: the pool stays open."""


class KeyAuth(httpx.Auth):
    """Adds the pool's headers, with the API key, to requests to the pool's origin.

    ``base_url``     BASE_URL; requests to another origin get none of the headers
    ``key, akey``    return the API key, or None. Called for each request, so that a rotated key takes effect.
                     Not called if the request has a header of ``key_headers``, or the extension
                     ``llm_pool_key``, whose value is then the key
    ``headers``      called with the key or None; returns the headers to add
    ``key_headers``  names of the headers that carry a key
    ``defaults``     those default headers of httpx and of this package that the user's HEADERS replace

    A header that the request has already is not replaced, unless its value is that of ``defaults``.
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

    def is_for(self, request: httpx.Request) -> bool:
        """Return whether ``request`` goes to the pool's origin."""
        return _origin(request.url) == self._origin

    def add_keyless_headers(self, request: httpx.Request) -> None:
        """Add the headers that carry no key, if ``request`` goes to the pool's origin."""
        if self.is_for(request):
            headers = self._headers(None).items()
            self._add(request, {name: value for name, value in headers if name not in self._key_headers})

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth.sync_auth_flow``."""
        if self.is_for(request):
            key = self._key() if self._needs_key(request) else _given_key(request)
            self._add(request, self._headers(key))
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See ``httpx.Auth.async_auth_flow``."""
        if self.is_for(request):
            key = await self._akey() if self._needs_key(request) else _given_key(request)
            self._add(request, self._headers(key))
        yield request

    def _needs_key(self, request: httpx.Request) -> bool:
        """Return whether the request has neither the extension ``llm_pool_key`` nor a header with a key.

        Then the pool's key is fetched. An SDK adds a key itself, so the pool needs none.
        """
        if "llm_pool_key" in request.extensions:
            return False
        return not any(name in request.headers for name in self._key_headers)

    def _add(self, request: httpx.Request, headers: Mapping[str, str]) -> None:
        own = request.headers
        added = {
            name: value
            for name, value in headers.items()
            if name not in own or own[name] == self._defaults.get(name)
        }
        own.update(added)
        request.extensions = {**request.extensions, "llm_pool_added": tuple(added)}


def _given_key(request: httpx.Request) -> str | None:
    key: str | None = request.extensions.get("llm_pool_key")
    return key


def _origin(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    return url.raw_scheme, url.raw_host, url.port
