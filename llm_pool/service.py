"""A pool as views see it: calls to a model, and the HTTP clients beneath them."""

from __future__ import annotations

from typing import Any

import httpx

from llm_pool.completions import Completion
from llm_pool.conf import PoolSettings
from llm_pool.engine import PoolStats
from llm_pool.providers.base import Messages
from llm_pool.sender import Answer, Sender
from llm_pool.streams import AsyncCompletionStream, CompletionStream
from llm_pool.transports.foreign import make_pool

__all__ = ["LLMPool"]


class LLMPool:
    """One alias of ``settings.LLM_POOL``. Safe to share between threads, tasks and event loops.

    ``messages`` is a list of dicts as the provider's API takes them, or a ``str``: one user message.
    ``params`` go into the request's body unchanged: ``model``, ``temperature``, ``tools``, ...

    Calls raise ``APIStatusError`` and its kin for what the provider refuses, ``InvalidResponse`` for an
    answer that is none, ``PoolTimeout`` and ``PoolFull`` when the pool is exhausted, ``InvalidMessages``
    before anything is sent; all of ``llm_pool.exceptions``, and all ``LLMPoolError``.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.alias = settings.alias
        self.engine = make_pool(settings.engine, settings.pool, settings.alias)
        self._provider = settings.provider
        self._sender = Sender(settings, self.engine)

    # Calls to a model

    def complete(self, messages: Messages, **params: Any) -> Completion:
        """The model's whole answer. For sync views, tasks and the shell.

        Blocks the thread. It works in an async view too, but holds up all others there: use ``acomplete``.
        """
        return self._completion(self._sender.fetch(*self._prepared(messages, params, stream=False)))

    async def acomplete(self, messages: Messages, **params: Any) -> Completion:
        """The model's whole answer. For async views."""
        return self._completion(await self._sender.afetch(*self._prepared(messages, params, stream=False)))

    def stream(self, messages: Messages, **params: Any) -> CompletionStream:
        """The model's answer as it comes. The call begins at the first step of the iteration."""
        return CompletionStream(self._sender, self._provider, *self._prepared(messages, params, stream=True))

    def astream(self, messages: Messages, **params: Any) -> AsyncCompletionStream:
        """The model's answer as it comes. The call begins at the first step of the iteration."""
        return AsyncCompletionStream(
            self._sender, self._provider, *self._prepared(messages, params, stream=True)
        )

    # Calls to anything else

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Any endpoint, ``path`` relative to BASE_URL; ``kwargs`` as for ``httpx.Client.request``."""
        return self.client.request(method, path, **kwargs)

    async def arequest(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Any endpoint, ``path`` relative to BASE_URL; ``kwargs`` as for ``httpx.AsyncClient.request``."""
        return await self.aclient.request(method, path, **kwargs)

    @property
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` on the pool, with the provider's headers for its own origin.

        There is one for all, and closing it does nothing: the pool is what is closed.
        """
        return self._sender.client

    @property
    def aclient(self) -> httpx.AsyncClient:
        """``client`` for async code, good for any event loop."""
        return self._sender.aclient

    # The pool itself

    def stats(self) -> PoolStats:
        """What the pool looks like now."""
        return self.engine.stats()

    async def aprewarm(self) -> None:
        """Open ``min_connections`` to the provider in the background, and keep them open."""
        await self.engine.prewarm(self._sender.origin)

    def drain(self, timeout: float | None = None) -> bool:
        """Replace connections as they come back; calls in flight finish. False after ``timeout`` seconds."""
        return self.engine.drain(timeout)

    async def adrain(self, timeout: float | None = None) -> bool:
        """``drain`` for async code."""
        return await self.engine.adrain(timeout)

    def close(self) -> None:
        """End the pool: its waiters and calls fail with ``PoolClosed``. May be called twice."""
        self.engine.close()

    async def aclose(self) -> None:
        """``close`` for async code."""
        await self.engine.aclose()

    def __repr__(self) -> str:
        return f"<LLMPool {self.alias!r} {self.settings.base_url}>"

    def _prepared(self, messages: Messages, params: dict[str, Any], *, stream: bool) -> tuple[str, bytes]:
        provider = self._provider
        request = provider.completion_request(messages, self.settings.model, params, stream=stream)
        return request.path, provider.encode(request.body)

    def _completion(self, answer: Answer) -> Completion:
        if not 200 <= answer.head.status_code < 300:
            raise self._provider.error_from_response(answer.head, answer.body)
        return self._provider.parse_completion(answer.head, answer.body, answer.timing)
