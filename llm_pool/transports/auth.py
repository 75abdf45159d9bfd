"""The API key of a pool, on requests to the pool's own origin and no other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import httpx

__all__ = ["KeyAuth"]


class KeyAuth(httpx.Auth):
    """Adds the provider's headers where the request does not bring its own.

    ``headers`` is asked for each request, so that a rotated key is taken up. A request to another origin,
    by redirect or by an absolute URL, never sees them.
    """

    def __init__(self, base_url: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self._origin = _origin(httpx.URL(base_url))
        self._headers = headers

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        if _origin(request.url) == self._origin:
            for name, value in self._headers().items():
                if name not in request.headers:
                    request.headers[name] = value
        yield request


def _origin(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    return url.raw_scheme, url.raw_host, url.port
