"""Send a call through the engine, or through httpx if mocks or instrumentation are installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_pool.calling.answers import Answer, OpenAnswer
from llm_pool.calling.through_httpx import ThroughHTTPX
from llm_pool.engine.content_coding import describe_coding
from llm_pool.exceptions import LLMPoolError, PoolClosed
from llm_pool.providers.head import Head, HeaderView
from llm_pool.transports.call_site import warn_if_blocking
from llm_pool.transports.redirects import FOLLOWED, afollow, follow

if TYPE_CHECKING:
    from llm_pool.conf.request_builder import RequestBuilder
    from llm_pool.conf.settings import PoolSettings
    from llm_pool.engine.content_timer import ContentTimer
    from llm_pool.engine.exchange import Exchange
    from llm_pool.engine.pool import Pool
    from llm_pool.engine.request import Marks, WholeResponse
    from llm_pool.engine.scope import CancelScope

__all__ = ["Sender"]


class Sender:
    """Sends the POST requests of one pool, through the engine or through httpx.

    Each method takes ``marks``, into which the engine writes the times of the call.

    ``max_answer_bytes``  how many bytes of an answer can be collected
    ``timeouts``          the pool's timeouts
    """

    def __init__(
        self, settings: PoolSettings, engine: Pool, builder: RequestBuilder, through_httpx: ThroughHTTPX
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._builder = builder
        self._through_httpx = through_httpx
        self._has_fixed_key = settings.has_fixed_key
        self._fixed_key = settings.key() if self._has_fixed_key else None
        self._secrets = (self._fixed_key, settings.secrets(self._fixed_key))  # the last key, and its secrets
        self.max_answer_bytes = settings.pool.limits.max_answer_bytes
        self.timeouts = settings.pool.timeouts

    async def afetch(self, path: str, body: bytes, marks: Marks) -> Answer:
        """Send ``body`` with POST and return the whole answer, whatever its status.

        ``path`` is relative to BASE_URL. The engine writes the times of the call into ``marks``. Raises
        LLMPoolError if the call fails or the answer is compressed in a way that cannot be decoded, and
        ``ImproperlyConfigured`` if the key is missing or malformed.
        """
        key = self._fixed_key if self._has_fixed_key else await self._settings.akey()
        if self._through_httpx.async_hooks.is_hooked():
            return await self._through_httpx.afetch(path, body, key, marks)
        request = self._builder.post(path, body, key, marks)
        whole = await self._engine.fetch(request)
        if whole.status in FOLLOWED:
            whole = await afollow(self._engine.fetch, request, whole)
        return Answer(self._head(whole, key), whole.body)

    def fetch(self, path: str, body: bytes, marks: Marks) -> Answer:
        """``afetch`` for sync code. Blocks the thread."""
        key = self._fixed_key if self._has_fixed_key else self._settings.key()
        if self._through_httpx.sync_hooks.is_hooked():
            return self._through_httpx.fetch(path, body, key, marks)
        warn_if_blocking()
        request = self._builder.post(path, body, key, marks)
        whole = self._engine.fetch_sync(request)
        if whole.status in FOLLOWED:
            whole = follow(self._engine.fetch_sync, request, whole)
        return Answer(self._head(whole, key), whole.body)

    async def aopen(
        self, path: str, body: bytes, marks: Marks, scope: CancelScope, *, timer: ContentTimer
    ) -> OpenAnswer:
        """Send ``body`` with POST, and return the answer when its head has arrived.

        ``timer`` limits the waits for content, before and after the head arrives. The other arguments but
        ``scope``, and the errors, are those of ``afetch``. Raises PoolClosed if ``scope`` is cancelled before
        the head arrives.
        """
        key = self._fixed_key if self._has_fixed_key else await self._settings.akey()
        if self._through_httpx.async_hooks.is_hooked():
            return await self._through_httpx.aopen(path, body, key, marks, scope, timer=timer)
        request = self._builder.post(path, body, key, marks, scope, content_timer=timer)
        exchange = await self._engine.open(request)
        if exchange.status in FOLLOWED:
            exchange = await afollow(self._engine.open, request, exchange)
        return self._open_answer(exchange, key)

    def open(
        self, path: str, body: bytes, marks: Marks, scope: CancelScope, *, timer: ContentTimer
    ) -> OpenAnswer:
        """``aopen`` for sync code. Blocks the thread."""
        key = self._fixed_key if self._has_fixed_key else self._settings.key()
        if self._through_httpx.sync_hooks.is_hooked():
            return self._through_httpx.open(path, body, key, marks, scope, timer=timer)
        warn_if_blocking()
        request = self._builder.post(path, body, key, marks, scope, content_timer=timer)
        exchange = self._engine.open_sync(request)
        if exchange.status in FOLLOWED:
            exchange = follow(self._engine.open_sync, request, exchange)
        return self._open_answer(exchange, key)

    def _open_answer(self, exchange: Exchange, key: str | None) -> OpenAnswer:
        try:
            return DirectAnswer(exchange, self._head(exchange, key))
        except LLMPoolError:
            exchange.close_threadsafe()
            raise

    def _head(self, response: WholeResponse | Exchange, key: str | None) -> Head:
        """Return the head of an answer.

        Raises an error if the body has a content coding without a decoder: InvalidResponse for a 2xx status,
        otherwise the APIStatusError of the status.
        """
        kept_for, secrets = self._secrets
        if kept_for != key:
            secrets = self._settings.secrets(key)
            self._secrets = (key, secrets)
        head = Head(response.status, HeaderView(response.headers), secrets)
        if not response.coding:
            return head
        what = describe_coding(response.coding)
        if 200 <= head.status_code < 300:
            raise self._settings.provider.invalid_response(head, what, b"")
        raise self._settings.provider.error_from_response(head, what.encode())


class DirectAnswer:
    """An ``OpenAnswer`` that reads from an exchange of the engine."""

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self.head = head

    async def aread(self) -> bytes:
        """See ``OpenAnswer.aread``."""
        return await self._exchange.host_loop.arun(self._exchange.read)

    def read(self) -> bytes:
        """See ``OpenAnswer.read``."""
        return self._exchange.host_loop.run(self._exchange.read)

    def mark_complete(self) -> None:
        """See ``OpenAnswer.mark_complete``."""
        self._exchange.is_complete_enough = True

    def close(self) -> None:
        """See ``OpenAnswer.close``."""
        self._exchange.close_threadsafe()

    async def aclose(self) -> None:
        """See ``OpenAnswer.aclose``."""
        if self._exchange.host_loop.is_current:
            self._exchange.close()
        else:
            self._exchange.close_threadsafe()

    def call_soon(self, function: Callable[[], object]) -> None:
        """See ``OpenAnswer.call_soon``."""
        with contextlib.suppress(PoolClosed):  # the event loop has ended
            self._exchange.host_loop.post(function)
