"""Builds the requests of a pool: target, headers with the key, timeouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from llm_pool.conf.settings import PoolSettings
from llm_pool.engine.config import Timeouts
from llm_pool.engine.request import Headers, Marks, Request
from llm_pool.version import __version__

if TYPE_CHECKING:
    from llm_pool.engine.scope import CancelScope

__all__ = ["CLIENT_HEADERS", "RequestBuilder"]

JSON = {"content-type": "application/json"}
CLIENT_HEADERS = {"user-agent": f"llm_pool/{__version__}", "accept-encoding": "identity"}


class RequestBuilder:
    """Builds the engine's requests for one pool, and the headers of its httpx clients.

    ``origin`` is where they go.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        url = httpx.URL(settings.base_url)
        self.origin = settings.origin
        self._prefix = url.raw_path.rstrip(b"/")
        self._host = url.netloc.decode("ascii")
        self._common: tuple[str | None, Headers] | None = None

    def post(
        self, path: str, body: bytes, key: str | None, marks: Marks, scope: CancelScope | None = None
    ) -> Request:
        """A POST of JSON with the pool's timeouts; ``path`` is relative to BASE_URL."""
        headers = [*self._common_headers(key), (b"Content-Length", b"%d" % len(body))]
        target = self._prefix + path.encode("ascii")
        return Request(
            self.origin, b"POST", target, headers, body, self._settings.pool.timeouts, scope, marks
        )

    def get(self, path: str, key: str | None, timeouts: Timeouts) -> Request:
        """A GET with the headers of every call."""
        target = self._prefix + path.encode("ascii")
        return Request(self.origin, b"GET", target, self._common_headers(key), b"", timeouts)

    def own_headers(self, key: str | None) -> dict[str, str]:
        """The provider's headers for ``key`` and the user's HEADERS, by lower-case name."""
        provider = self._settings.provider.headers(key)
        return {
            name.lower(): value
            for headers in (provider, self._settings.headers)
            for name, value in headers.items()
        }

    def content_type(self, key: str | None) -> str:
        """The content type of a POST."""
        return self.own_headers(key).get("content-type", JSON["content-type"])

    def defaults(self) -> dict[str, str]:
        """The headers that httpx and this package set by themselves, and the user's HEADERS may replace."""
        names = {name.lower() for name in self._settings.headers}
        ours = {"accept": "*/*", **CLIENT_HEADERS, **JSON}
        return {name: value for name, value in ours.items() if name in names}

    def _common_headers(self, key: str | None) -> Headers:
        """The headers that all requests with this key have in common, encoded once."""
        if self._common is None or self._common[0] != key:
            headers = {"host": self._host} | CLIENT_HEADERS | JSON | self.own_headers(key)
            encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
            self._common = (key, encoded)
        return self._common[1]
