"""The API key of a pool, on requests to the pool's own origin and no other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import httpx

__all__ = ["AsyncClient", "Client", "KeyAuth"]


class KeyAuth(httpx.Auth):
    """Adds the provider's headers where the request does not bring its own.

    ``headers`` is asked for each request, so that a rotated key is taken up. A request to another origin,
    by an absolute URL, never sees them; nor does one by redirect, in the clients below.
    """

    def __init__(self, base_url: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self._origin = _origin(httpx.URL(base_url))
        self._headers = headers

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            added = {name: value for name, value in self._headers().items() if name not in request.headers}
            request.headers.update(added)
            request.extensions = {**request.extensions, "llm_pool_added": tuple(added)}
        yield request


class _Redirects:
    """httpx carries a request's headers over to where it is redirected, all but ``Authorization``."""

    def _redirect_headers(self, request: httpx.Request, url: httpx.URL, method: str) -> httpx.Headers:
        headers: httpx.Headers = super()._redirect_headers(request, url, method)  # type: ignore[misc]
        if _origin(url) != _origin(request.url):
            for name in request.extensions.get("llm_pool_added", ()):
                headers.pop(name, None)
        return headers


class AsyncClient(_Redirects, httpx.AsyncClient):
    """An ``httpx.AsyncClient`` that leaves behind what ``KeyAuth`` added when it is sent elsewhere."""


class Client(_Redirects, httpx.Client):
    """``AsyncClient``, for threads."""


def _origin(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    return url.raw_scheme, url.raw_host, url.port
