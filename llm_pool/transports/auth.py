"""The API key of a pool, on requests to the pool's own origin and no other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

import httpx

__all__ = ["KeyAuth", "Redirects"]


class KeyAuth(httpx.Auth):
    """Adds the provider's headers where the request does not bring its own.

    ``headers`` or ``aheaders`` is asked for each request, so that a rotated key is taken up. A request to
    another origin, by an absolute URL, never sees them; nor does one by redirect, where the client is one of
    ``Redirects``.
    """

    def __init__(
        self,
        base_url: str,
        headers: Callable[[], Mapping[str, str]],
        aheaders: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._origin = _origin(httpx.URL(base_url))
        self._headers = headers
        self._aheaders = aheaders

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            _add(request, self._headers())
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            _add(request, await self._aheaders())
        yield request


def _add(request: httpx.Request, headers: Mapping[str, str]) -> None:
    added = {name: value for name, value in headers.items() if name not in request.headers}
    request.headers.update(added)
    request.extensions = {**request.extensions, "llm_pool_added": tuple(added)}


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
