"""The API key of a pool, on requests to the pool's own origin and no other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping

import httpx

__all__ = ["KeyAuth", "Redirects"]


class KeyAuth(httpx.Auth):
    """Adds ``headers(key)`` where the request does not bring its own; one of the ``defaults`` is not its own.

    ``key`` or ``akey`` is asked for each request, so that a rotated key is taken up, unless the request has
    it as its extension ``llm_pool_key``. A request to another origin, by an absolute URL, never sees the
    headers; nor does one by redirect, where the client is one of ``Redirects``.
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
        """Not one that has it, or brings one of its own: an SDK does, and the pool may have none to give."""
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


class Redirects:
    """httpx carries a request's headers over to where it is redirected, all but ``Authorization``."""

    def _redirect_headers(self, request: httpx.Request, url: httpx.URL, method: str) -> httpx.Headers:
        headers: httpx.Headers = super()._redirect_headers(request, url, method)  # type: ignore[misc]
        if _origin(url) != _origin(request.url):
            for name in request.extensions.get("llm_pool_added", ()):
                headers.pop(name, None)
        return headers


def _origin(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    return url.raw_scheme, url.raw_host, url.port
