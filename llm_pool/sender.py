"""Sends one prepared call: straight to the engine, or through httpx where somebody looks on there."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from llm_pool.completions import Timing, timing_of
from llm_pool.conf import PoolSettings
from llm_pool.engine.config import Timeouts
from llm_pool.engine.errors import LLMPoolError
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Headers, Request, WholeResponse
from llm_pool.engine.scope import CancelScope
from llm_pool.providers.base import Head
from llm_pool.sources import AsyncHTTPXSource, HeaderView, HTTPXSource, Source, StraightSource
from llm_pool.transports.asynchronous import AsyncTransport
from llm_pool.transports.auth import KeyAuth
from llm_pool.transports.blocking import warn_where_it_blocks
from llm_pool.transports.clients import AsyncClient, Client
from llm_pool.transports.errors import adopted, public
from llm_pool.transports.hooks import is_plain
from llm_pool.transports.synchronous import Transport
from llm_pool.transports.translation import content_coding
from llm_pool.version import __version__

__all__ = ["Answer", "Sender"]

USER_AGENT = f"llm_pool/{__version__}"
JSON = {"content-type": "application/json"}
CLIENT_HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}


class Answer(NamedTuple):
    """A response read to its end; ``body`` is decoded."""

    head: Head
    body: bytes
    timing: Timing | None
    replays: int = 0

    def __repr__(self) -> str:
        return f"<Answer {self.head.status_code}>"  # the body may repeat the key, before the errors hide it


class Sender:
    """Sends POSTs for one pool. Keeps the two httpx clients, whose hooks every call must honour."""

    def __init__(self, settings: PoolSettings, engine: Pool) -> None:
        self._settings = settings
        self._engine = engine
        url = httpx.URL(settings.base_url)
        self.origin = settings.origin
        self._prefix = url.raw_path.rstrip(b"/")
        self._host = url.netloc.decode("ascii")
        self._fixed: tuple[str | None, Headers] | None = None
        options: dict[str, Any] = {
            "base_url": settings.base_url,
            "headers": CLIENT_HEADERS,
            "auth": KeyAuth(
                settings.base_url,
                key=settings.key,
                akey=settings.akey,
                headers=self._provider_headers,
                key_headers=settings.provider.key_headers,
                defaults=self._defaults(),
            ),
            "timeout": _httpx_timeout(settings.pool.timeouts),
        }
        self.aclient = AsyncClient(transport=AsyncTransport(engine), **options)
        self.client = Client(transport=Transport(engine), **options)

    def probe(self, path: str, key: str | None, timeouts: Timeouts) -> Request:
        """A GET with the headers of every call, to be sent by whoever looks at the pool itself."""
        target = self._prefix + path.encode("ascii")
        return Request(self.origin, b"GET", target, self._fixed_headers(key), b"", timeouts)

    async def afetch(self, path: str, body: bytes) -> Answer:
        """POST ``body`` and read the whole answer."""
        key = await self._settings.akey()
        if not is_plain(self.aclient):
            with adopted():
                response = await self.aclient.post(path, **self._looked_on(body, key))
                return _answer(response, self._settings.secrets(key))
        try:
            whole = await self._engine.fetch(self._request(path, body, key))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._answer(whole, key)

    def fetch(self, path: str, body: bytes) -> Answer:
        """``afetch`` for a plain thread."""
        key = self._settings.key()
        if not is_plain(self.client):
            with adopted():
                response = self.client.post(path, **self._looked_on(body, key))
                return _answer(response, self._settings.secrets(key))
        warn_where_it_blocks()
        try:
            whole = self._engine.fetch_sync(self._request(path, body, key))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._answer(whole, key)

    async def aopen(self, path: str, body: bytes, scope: CancelScope) -> Source:
        """POST ``body`` and wait for the head of the answer, or until ``scope`` is cancelled."""
        key = await self._settings.akey()
        if not is_plain(self.aclient):
            request = self.aclient.build_request("POST", path, **self._looked_on(body, key, scope))
            with adopted():
                response = await self.aclient.send(request, stream=True)
                return AsyncHTTPXSource(response, self._settings.secrets(key))
        try:
            exchange = await self._engine.open(self._request(path, body, key, scope))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._source(exchange, key)

    def open(self, path: str, body: bytes, scope: CancelScope) -> Source:
        """``aopen`` for a plain thread."""
        key = self._settings.key()
        if not is_plain(self.client):
            request = self.client.build_request("POST", path, **self._looked_on(body, key, scope))
            with adopted():
                return HTTPXSource(self.client.send(request, stream=True), self._settings.secrets(key))
        warn_where_it_blocks()
        try:
            exchange = self._engine.open_sync(self._request(path, body, key, scope))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._source(exchange, key)

    def _answer(self, whole: WholeResponse, key: str | None) -> Answer:
        head = self._head(whole.status, whole.headers, key)
        return Answer(head, whole.body, timing_of(whole.marks), whole.marks.replays)

    def _source(self, exchange: Exchange, key: str | None) -> Source:
        try:
            return StraightSource(exchange, self._head(exchange.status, exchange.headers, key))
        except LLMPoolError:
            exchange.leave()
            raise

    def _head(self, status: int, headers: Headers, key: str | None) -> Head:
        """Raises InvalidResponse, or the error of its status, for a compressed body: it was not to be."""
        head = Head(status, HeaderView(headers), self._settings.secrets(key))
        coding = content_coding(headers)
        if not coding:
            return head
        what = f"a body compressed by {coding!r}, although the request did not accept that"
        if 200 <= status < 300:
            raise self._settings.provider.invalid_response(head, what, b"")
        raise self._settings.provider.error_from_response(head, what.encode())

    def _request(self, path: str, body: bytes, key: str | None, scope: CancelScope | None = None) -> Request:
        headers = [*self._fixed_headers(key), (b"Content-Length", b"%d" % len(body))]
        target = self._prefix + path.encode("ascii")
        return Request(self.origin, b"POST", target, headers, body, self._settings.pool.timeouts, scope)

    def _looked_on(self, body: bytes, key: str | None, scope: CancelScope | None = None) -> dict[str, Any]:
        """What a POST through httpx is made of. It goes out with the key of which its errors say nothing."""
        kind = self._provider_headers(key).get("content-type", JSON["content-type"])
        extensions = {"llm_pool_key": key, "llm_pool_scope": scope}
        return {"content": body, "headers": {"content-type": kind}, "extensions": extensions}

    def _fixed_headers(self, key: str | None) -> Headers:
        """What all requests with this key have in common."""
        if self._fixed is None or self._fixed[0] != key:
            headers = {"host": self._host, "user-agent": USER_AGENT, "accept-encoding": "identity"}
            headers |= JSON | self._provider_headers(key)
            encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
            self._fixed = (key, encoded)
        return self._fixed[1]

    def _provider_headers(self, key: str | None) -> dict[str, str]:
        own = self._settings.provider.headers(key)
        return {
            name.lower(): value
            for headers in (own, self._settings.headers)
            for name, value in headers.items()
        }

    def _defaults(self) -> dict[str, str]:
        """What httpx and we put on requests by ourselves, and the user's HEADERS may replace."""
        names = {name.lower() for name in self._settings.headers}
        ours = {"accept": "*/*", **CLIENT_HEADERS, **JSON}
        return {name: value for name, value in ours.items() if name in names}


def _answer(response: httpx.Response, secrets: tuple[str, ...]) -> Answer:
    marks = response.extensions.get("llm_pool_marks")
    head = Head(response.status_code, response.headers, secrets)
    if marks is None:
        return Answer(head, response.content, None)
    return Answer(head, response.content, timing_of(marks), marks.replays)


def _httpx_timeout(timeouts: Timeouts) -> httpx.Timeout:
    return httpx.Timeout(
        connect=timeouts.connect, read=timeouts.read, write=timeouts.write, pool=timeouts.pool
    )
