"""Builds a pool's requests: the target, the headers with the key, and the timeouts."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import httpx

from llm_pool.conf.settings import PoolSettings
from llm_pool.engine.config import Timeouts
from llm_pool.engine.head import RequestHead
from llm_pool.engine.request import Marks, Request
from llm_pool.transports.query import Query
from llm_pool.version import __version__

if TYPE_CHECKING:
    from llm_pool.engine.content_timer import ContentTimer
    from llm_pool.engine.scope import CancelScope

__all__ = ["CLIENT_HEADERS", "RequestBuilder"]

JSON = {"content-type": "application/json"}
MAX_HEADS = 64  # heads that a builder keeps: a provider's path can contain the model
CLIENT_HEADERS = {"user-agent": f"llm_pool/{__version__}", "accept-encoding": "identity"}


class RequestBuilder:
    """Builds the engine's requests for one pool, and the headers of its httpx clients.

    ``url``     BASE_URL
    ``origin``  the scheme, host and port of BASE_URL
    ``query``   QUERY
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self.url = httpx.URL(settings.base_url)
        self.origin = settings.origin
        self.query = Query(settings.query)
        self._prefix = self.url.raw_path.rstrip(b"/")
        self._host = self.url.netloc.decode("ascii")
        self._heads: tuple[str | None, dict[str, RequestHead]] = (None, {})  # a key, and its heads by path

    def with_settings(self, settings: PoolSettings) -> RequestBuilder:
        """Return a builder with other headers, QUERY and timeouts. ``settings`` has the same BASE_URL."""
        other = copy(self)
        other._settings = settings
        other.query = Query(settings.query)
        other._heads = (None, {})
        return other

    def post(
        self,
        path: str,
        body: bytes,
        key: str | None,
        marks: Marks,
        scope: CancelScope | None = None,
        *,
        content_timer: ContentTimer | None = None,
    ) -> Request:
        """Return a POST request with the pool's timeouts. ``path`` is relative to BASE_URL.

        ``body`` is encoded JSON. ``key`` goes into the headers, unless it is None. ``marks``, ``scope`` and
        ``content_timer`` go into the request. Its head is kept for each path, until the key changes.
        """
        kept_for, heads = self._heads
        if kept_for != key or len(heads) > MAX_HEADS:
            heads = {}
            self._heads = (key, heads)
        head = heads.get(path)
        if head is None:
            head = heads[path] = self._head(b"POST", path, key)
        timeouts = self._settings.pool.timeouts
        return Request(head, body, timeouts, scope=scope, marks=marks, content_timer=content_timer)

    def get(self, path: str, key: str | None, timeouts: Timeouts) -> Request:
        """Return a GET request with the headers that every call has. ``path`` is relative to BASE_URL.

        ``key`` goes into the headers, unless it is None.
        """
        return Request(self._head(b"GET", path, key), b"", timeouts)

    def own_headers(self, key: str | None) -> dict[str, str]:
        """Return the provider's headers for ``key`` and the user's HEADERS, by lower-case name.

        HEADERS replace headers of the provider with the same name.
        """
        provider = self._settings.provider.headers(key)
        return {
            name.lower(): value
            for headers in (provider, self._settings.headers)
            for name, value in headers.items()
        }

    def content_type(self, key: str | None) -> str:
        """Return the ``Content-Type`` of a POST request with ``key``: JSON's if the headers have none."""
        return self.own_headers(key).get("content-type", JSON["content-type"])

    def defaults(self) -> dict[str, str]:
        """Return those default headers of httpx and of this package that the user's HEADERS replace."""
        names = {name.lower() for name in self._settings.headers}
        default = {"accept": "*/*", **CLIENT_HEADERS, **JSON}
        return {name: value for name, value in default.items() if name in names}

    def _head(self, method: bytes, path: str, key: str | None) -> RequestHead:
        headers = {"host": self._host} | CLIENT_HEADERS | JSON | self.own_headers(key)
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        target = self.query.add_to(self._prefix + path.encode("ascii"))
        return RequestHead(self.origin, method, target, encoded)
