"""Sends calls through the pool's httpx clients, so that mocks and instrumentation can intercept them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

import httpx

from llm_pool.calling.answers import Answer, OpenAnswer
from llm_pool.conf.request_builder import CLIENT_HEADERS
from llm_pool.exceptions import PoolClosed
from llm_pool.providers.base import Head
from llm_pool.transports.clients import AsyncClient, Client, KeyAuth
from llm_pool.transports.errors import translate_httpx_errors
from llm_pool.transports.hooks import HookDetector
from llm_pool.transports.transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from llm_pool.conf.request_builder import RequestBuilder
    from llm_pool.conf.settings import PoolSettings
    from llm_pool.engine.config import Timeouts
    from llm_pool.engine.content_timer import ContentTimer
    from llm_pool.engine.pool import Pool
    from llm_pool.engine.request import Marks
    from llm_pool.engine.scope import CancelScope
    from llm_pool.transports.body import AsyncBody, Body

__all__ = ["ThroughHTTPX"]


class ThroughHTTPX:
    """Sends POST requests through the httpx clients of a pool.

    The clients outlive the pool: after its end they use the pool that follows it, if there is one.

    ``client``       the pool's ``httpx.Client``
    ``aclient``      the pool's ``httpx.AsyncClient``
    ``sync_hooks``   detects whether mocks or instrumentation intercept the requests of ``client``
    ``async_hooks``  does the same for ``aclient``
    """

    def __init__(
        self,
        settings: PoolSettings,
        engine: Pool,
        builder: RequestBuilder,
        following: Callable[[], ThroughHTTPX] | None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._clients_engine = engine
        self._builder = builder
        self._following = following
        self._auth = _key_auth(settings, builder)
        self._options: dict[str, Any] = {}  # of httpx's requests
        self._extensions: dict[str, Any] = {}
        options: dict[str, Any] = {
            "base_url": settings.base_url,
            "headers": CLIENT_HEADERS,
            "auth": self._auth,
            "renew": self._renew_clients,
            "timeout": _httpx_timeout(settings.pool.timeouts),
            "follow_redirects": None,  # see ``Redirects``
        }
        self.aclient = AsyncClient(transport=AsyncTransport(engine), **options)
        self.client = Client(transport=Transport(engine), **options)
        self.async_hooks = HookDetector(self.aclient)
        self.sync_hooks = HookDetector(self.client)
        self._defaults = {name: getattr(self.client, name) for name in ("auth", "base_url", "timeout")}

    def with_settings(self, settings: PoolSettings, builder: RequestBuilder) -> ThroughHTTPX:
        """Return an object that sends through the same clients, with other headers, QUERY and timeouts."""
        other = copy(self)
        other._settings = settings
        other._builder = builder
        other._auth = _key_auth(settings, builder)
        other._extensions = {"llm_pool_auth": other._auth, "llm_pool_timeouts": settings.pool.timeouts}
        timeout = _httpx_timeout(settings.pool.timeouts)
        if timeout != _httpx_timeout(self._settings.pool.timeouts):
            other._options = {"timeout": timeout}
        return other

    async def afetch(self, path: str, body: bytes, key: str | None, marks: Marks) -> Answer:
        """Send ``body`` with POST and return the whole answer, whatever its status.

        ``path`` is relative to BASE_URL. ``key`` goes into the headers, unless it is None. The engine writes
        the times of the call into ``marks``; a mock writes none. Raises LLMPoolError if the call fails.
        """
        with translate_httpx_errors():
            response = await self.aclient.post(**self._post_arguments(path, body, key, marks))
            return self._answer(response, key)

    def fetch(self, path: str, body: bytes, key: str | None, marks: Marks) -> Answer:
        """``afetch`` for sync code. Blocks the thread."""
        with translate_httpx_errors():
            return self._answer(self.client.post(**self._post_arguments(path, body, key, marks)), key)

    async def aopen(
        self,
        path: str,
        body: bytes,
        key: str | None,
        marks: Marks,
        scope: CancelScope,
        *,
        timer: ContentTimer,
    ) -> OpenAnswer:
        """Send ``body`` with POST, and return the answer when its head has arrived.

        ``timer`` limits the waits for content, before and after the head arrives. The other arguments but
        ``scope``, and the errors, are those of ``afetch``. Raises PoolClosed if ``scope`` is cancelled before
        the head arrives. A mock ignores ``scope`` and ``timer``.
        """
        arguments = self._post_arguments(path, body, key, marks, scope, timer=timer)
        request = self.aclient.build_request("POST", **arguments)
        with translate_httpx_errors():
            response = await self.aclient.send(request, stream=True)
            return AsyncHTTPXAnswer(response, self._settings.secrets(key))

    def open(
        self,
        path: str,
        body: bytes,
        key: str | None,
        marks: Marks,
        scope: CancelScope,
        *,
        timer: ContentTimer,
    ) -> OpenAnswer:
        """``aopen`` for sync code. Blocks the thread."""
        arguments = self._post_arguments(path, body, key, marks, scope, timer=timer)
        request = self.client.build_request("POST", **arguments)
        with translate_httpx_errors():
            return HTTPXAnswer(self.client.send(request, stream=True), self._settings.secrets(key))

    def request_options(self, given: Mapping[str, Any], marks: Marks) -> dict[str, Any]:
        """Return ``given``, the options of a client's ``request``, with those that every request has.

        The engine writes the times of the call into ``marks``. Raises PoolClosed if the pool is closed.
        """
        self.raise_if_closed()
        extensions = {**self._extensions, **(given.get("extensions") or {}), "llm_pool_marks": marks}
        return {**self._options, **given, "extensions": extensions}

    def raise_if_closed(self) -> None:
        """Raise PoolClosed if the pool is closed: its clients would send through the pool that follows it."""
        if self._engine.closed:
            raise PoolClosed(f"pool {self._settings.alias!r} is closed")

    def _renew_clients(self) -> None:
        """If the pool that the clients use is closed, let them use the pool that follows it.

        They get its key, HEADERS, QUERY, URL and timeouts, in place of those that their user has not changed.
        Raises ``ImproperlyConfigured`` if the settings are invalid now, or have no such pool any more.
        """
        if self._following is None or not self._clients_engine.closed:
            return
        following = self._following()
        for client in (self.client, self.aclient):
            for name, default in self._defaults.items():
                if getattr(client, name) == default:
                    setattr(client, name, following._defaults[name])
            client.rebind(following._engine, following._auth)
        self._defaults = following._defaults
        self._clients_engine = following._engine  # the last step: from now on no other thread renews

    def _answer(self, response: httpx.Response, key: str | None) -> Answer:
        head = Head(response.status_code, response.headers, self._settings.secrets(key))
        return Answer(head, response.content)

    def _post_arguments(
        self,
        path: str,
        body: bytes,
        key: str | None,
        marks: Marks,
        scope: CancelScope | None = None,
        *,
        timer: ContentTimer | None = None,
    ) -> dict[str, Any]:
        """Return the arguments of an httpx client's ``post`` or ``build_request``.

        The URL is absolute: clients that are renewed meanwhile send no key of this pool to another server.
        All but ``path`` and ``body`` become extensions of the request: ``KeyAuth`` adds the key to the
        headers, and the engine uses the others. Raises PoolClosed if the pool is closed.
        """
        self.raise_if_closed()
        return {
            "url": self._settings.base_url + path,
            "content": body,
            "headers": {"content-type": self._builder.content_type(key)},
            **self._options,
            "extensions": {
                **self._extensions,
                "llm_pool_key": key,
                "llm_pool_marks": marks,
                "llm_pool_scope": scope,
                "llm_pool_content_timer": timer,
            },
        }


class HTTPXAnswer:
    """An ``OpenAnswer`` that reads from a streamed response of an ``httpx.Client``."""

    def __init__(self, response: httpx.Response, secrets: tuple[str, ...]) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_bytes()
        self.head = Head(response.status_code, response.headers, secrets)

    def read(self) -> bytes:
        """See ``OpenAnswer.read``."""
        with translate_httpx_errors():
            return next(self._pieces, b"")

    async def aread(self) -> bytes:
        """See ``OpenAnswer.aread``. Reads in a thread, because mocks and hooks of a sync client can block."""
        return await asyncio.to_thread(self.read)

    def mark_complete(self) -> None:
        """See ``OpenAnswer.mark_complete``."""
        _mark_complete(self._response)

    def close(self) -> None:
        """See ``OpenAnswer.close``."""
        self._response.close()

    async def aclose(self) -> None:
        """See ``OpenAnswer.aclose``."""
        await asyncio.to_thread(self.close)

    def call_soon(self, function: Callable[[], object]) -> None:
        """See ``OpenAnswer.call_soon``."""
        _call_soon(self._response, function)


class AsyncHTTPXAnswer:
    """An ``OpenAnswer`` that reads from a streamed response of an ``httpx.AsyncClient``.

    Only async code can read the answer.
    """

    def __init__(self, response: httpx.Response, secrets: tuple[str, ...]) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self.head = Head(response.status_code, response.headers, secrets)

    async def aread(self) -> bytes:
        """See ``OpenAnswer.aread``."""
        with translate_httpx_errors():
            return await anext(self._pieces, b"")

    def read(self) -> bytes:
        """Raises RuntimeError: a thread cannot read an async response."""
        raise RuntimeError("this stream was begun by a task; read it with 'async for'")

    def mark_complete(self) -> None:
        """See ``OpenAnswer.mark_complete``."""
        _mark_complete(self._response)

    def close(self) -> None:
        """See ``OpenAnswer.close``.

        Does nothing for the response of a mock or of a user's own transport: only ``aclose`` closes that.
        """
        body = _body(self._response)
        if body is not None:
            body.close()

    async def aclose(self) -> None:
        """See ``OpenAnswer.aclose``. Closes the response of any transport, also of a mock."""
        await self._response.aclose()

    def call_soon(self, function: Callable[[], object]) -> None:
        """See ``OpenAnswer.call_soon``."""
        _call_soon(self._response, function)


def _call_soon(response: httpx.Response, function: Callable[[], object]) -> None:
    body = _body(response)
    if body is None:  # the response of a mock or of another transport has no host loop
        function()
        return
    with contextlib.suppress(PoolClosed):  # the event loop has ended
        body.host_loop.post(function)


def _mark_complete(response: httpx.Response) -> None:
    body = _body(response)
    if body is not None:
        body.mark_complete()


def _body(response: httpx.Response) -> Body | AsyncBody | None:
    """Return the body that a transport of this package added to ``response``; None for other transports."""
    body: Body | AsyncBody | None = response.extensions.get("llm_pool_body")
    return body


def _key_auth(settings: PoolSettings, builder: RequestBuilder) -> KeyAuth:
    return KeyAuth(
        builder.url,
        key=settings.key,
        akey=settings.akey,
        headers=builder.own_headers,
        key_headers=settings.provider.key_headers,
        defaults=builder.defaults(),
        query=builder.query,
    )


def _httpx_timeout(timeouts: Timeouts) -> httpx.Timeout:
    return httpx.Timeout(
        connect=timeouts.connect, read=timeouts.read, write=timeouts.write, pool=timeouts.pool
    )
