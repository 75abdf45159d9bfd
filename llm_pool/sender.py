"""Sends one prepared call: straight to the engine, or through httpx where somebody looks on there."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from llm_pool.completions import Timing
from llm_pool.conf import PoolSettings
from llm_pool.engine.config import Timeouts
from llm_pool.engine.errors import LLMPoolError
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Headers, Request, Whole
from llm_pool.engine.scope import CancelScope
from llm_pool.exceptions import InvalidResponse
from llm_pool.providers.base import Head
from llm_pool.sources import AsyncHTTPXSource, HeaderView, HTTPXSource, Source, StraightSource, timing_of
from llm_pool.transports.asynchronous import AsyncTransport
from llm_pool.transports.auth import KeyAuth
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
            "auth": KeyAuth(settings.base_url, self._key_headers, self._akey_headers),
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
                return _answer(
                    await self.aclient.post(path, content=body, headers=JSON), self._settings.secrets(key)
                )
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
                return _answer(
                    self.client.post(path, content=body, headers=JSON), self._settings.secrets(key)
                )
        try:
            whole = self._engine.fetch_sync(self._request(path, body, key))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._answer(whole, key)

    async def aopen(self, path: str, body: bytes, scope: CancelScope) -> Source:
        """POST ``body`` and wait for the head of the answer, or until ``scope`` is cancelled."""
        key = await self._settings.akey()
        if not is_plain(self.aclient):
            request = _streaming(self.aclient, path, body, scope)
            with adopted():
                return AsyncHTTPXSource(
                    await self.aclient.send(request, stream=True), self._settings.secrets(key)
                )
        try:
            exchange = await self._engine.open(self._request(path, body, key, scope))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._source(exchange, key)

    def open(self, path: str, body: bytes, scope: CancelScope) -> Source:
        """``aopen`` for a plain thread."""
        key = self._settings.key()
        if not is_plain(self.client):
            request = _streaming(self.client, path, body, scope)
            with adopted():
                return HTTPXSource(self.client.send(request, stream=True), self._settings.secrets(key))
        try:
            exchange = self._engine.open_sync(self._request(path, body, key, scope))
        except LLMPoolError as error:
            raise public(error) from error.__cause__
        return self._source(exchange, key)

    def _answer(self, whole: Whole, key: str | None) -> Answer:
        head = self._head(whole.status, whole.headers, key)
        return Answer(head, whole.body, timing_of(whole.marks), whole.marks.replays)

    def _source(self, exchange: Exchange, key: str | None) -> Source:
        try:
            return StraightSource(exchange, self._head(exchange.status, exchange.headers, key))
        except InvalidResponse:
            exchange.leave()
            raise

    def _head(self, status: int, headers: Headers, key: str | None) -> Head:
        """Raises InvalidResponse for a success that is compressed, though it was not to be."""
        head = Head(status, HeaderView(headers), self._settings.secrets(key))
        coding = content_coding(headers)
        if coding and 200 <= status < 300:
            what = f"a body compressed by {coding!r}, which nobody had asked for"
            raise self._settings.provider.invalid_response(head, what, b"")
        return head

    def _request(self, path: str, body: bytes, key: str | None, scope: CancelScope | None = None) -> Request:
        headers = [*self._fixed_headers(key), (b"Content-Length", b"%d" % len(body))]
        target = self._prefix + path.encode("ascii")
        return Request(self.origin, b"POST", target, headers, body, self._settings.pool.timeouts, scope)

    def _fixed_headers(self, key: str | None) -> Headers:
        """What all requests with this key have in common."""
        if self._fixed is None or self._fixed[0] != key:
            headers = {"host": self._host, "user-agent": USER_AGENT, "accept-encoding": "identity"}
            headers |= JSON | self._provider_headers(key)
            encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
            self._fixed = (key, encoded)
        return self._fixed[1]

    def _provider_headers(self, key: str | None) -> dict[str, str]:
        given = {name.lower(): value for name, value in self._settings.headers.items()}
        return self._settings.provider.headers(key) | given

    def _key_headers(self) -> dict[str, str]:
        return self._provider_headers(self._settings.key())

    async def _akey_headers(self) -> dict[str, str]:
        return self._provider_headers(await self._settings.akey())


def _streaming(client: Client | AsyncClient, path: str, body: bytes, scope: CancelScope) -> httpx.Request:
    extensions = {"llm_pool_scope": scope}
    return client.build_request("POST", path, content=body, headers=JSON, extensions=extensions)


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
