"""The httpx clients of a pool, and the code that adds the API key and QUERY to their requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, Self

import httpx

from llm_pool.engine.pool import Pool

from .collecting import mark
from .cookies import WithoutCookies
from .query import Query
from .redirects import AsyncRedirects, Redirects, origin_of_url
from .transport import AsyncTransport, Transport

__all__ = ["AsyncClient", "Client", "KeyAuth"]


class _PoolClient:
    """A mixin for httpx clients that outlive their pool, and use a ``KeyAuth``.

    ``auth``       the auth of requests without an ``auth`` of their own
    ``transport``  sends the requests, unless the client's user has mounted or set another transport
    ``renew``      called before each request is built and before it is sent; it may call ``rebind``

    A request with its own ``auth``, None included, gets the pool's headers without those that carry a key. A
    request to another origin gets the user name and password of its URL, as httpx sends them. A request with
    the extension ``llm_pool_auth``, a ``KeyAuth``, uses that in place of the pool's.
    """

    def __init__(
        self,
        *,
        auth: KeyAuth,
        transport: AsyncTransport | Transport,
        renew: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(auth=auth, transport=transport, **options)  # type: ignore[call-arg]
        self._key_auth = auth
        self._pool_transport = transport
        self._renew = renew

    def rebind(self, pool: Pool, auth: KeyAuth) -> None:
        """Send through ``pool`` from now on, and take the headers from ``auth``."""
        self._key_auth = auth
        self._pool_transport.rebind(pool)

    def build_request(self, *args: Any, **options: Any) -> httpx.Request:
        """See ``httpx.Client.build_request``."""
        self._renew()
        request: httpx.Request = super().build_request(*args, **options)  # type: ignore[misc]
        return request

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> Any:
        """See ``httpx.Client.send`` and ``httpx.AsyncClient.send``.

        Raises AnswerTooLarge if an answer to collect is too large.
        """
        self._renew()
        mark(request, collected=not stream)
        return super().send(request, stream=stream, **options)  # type: ignore[misc]

    def _build_request_auth(self, request: httpx.Request, auth: Any = httpx.USE_CLIENT_DEFAULT) -> httpx.Auth:
        chosen: httpx.Auth = super()._build_request_auth(request, auth)  # type: ignore[misc]
        key_auth: KeyAuth = request.extensions.get("llm_pool_auth", self._key_auth)
        if not isinstance(chosen, KeyAuth):
            key_auth.add_keyless_headers(request)
            return chosen
        if key_auth.is_for(request):
            return key_auth
        return super()._build_request_auth(request, None)  # type: ignore[misc,no-any-return]


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
    """Adds the pool's headers, with the API key, and QUERY to requests to the pool's origin.

    ``url``          BASE_URL; requests to another origin get none of the headers, and no QUERY
    ``key, akey``    return the API key, or None. Called for each request, so that a rotated key takes effect.
                     Not called if the request has a header of ``key_headers``, or the extension
                     ``llm_pool_key``, whose value is then the key
    ``headers``      called with the key or None; returns the headers to add
    ``key_headers``  names of the headers that carry a key
    ``defaults``     those default headers of httpx and of this package that the user's HEADERS replace
    ``query``        QUERY

    A header that the request has already is not replaced, unless its value is that of ``defaults``. A
    parameter that its URL has already is not replaced.
    """

    def __init__(
        self,
        url: httpx.URL,
        *,
        key: Callable[[], str | None],
        akey: Callable[[], Awaitable[str | None]],
        headers: Callable[[str | None], Mapping[str, str]],
        key_headers: Iterable[str],
        defaults: Mapping[str, str],
        query: Query,
    ) -> None:
        self._origin = origin_of_url(url)
        self._key = key
        self._akey = akey
        self._headers = headers
        self._key_headers = frozenset(key_headers)
        self._defaults = defaults
        self._query = query

    def is_for(self, request: httpx.Request) -> bool:
        """Return whether ``request`` goes to the pool's origin."""
        return origin_of_url(request.url) == self._origin

    def add_keyless_headers(self, request: httpx.Request) -> None:
        """Add QUERY, and the headers that carry no key, if ``request`` goes to the pool's origin."""
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
        self._query.add_to_url(request)


def _given_key(request: httpx.Request) -> str | None:
    key: str | None = request.extensions.get("llm_pool_key")
    return key
