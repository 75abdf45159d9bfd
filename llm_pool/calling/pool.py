"""A pool as views see it: calls to a model, and the HTTP clients beneath them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
from asgiref.sync import async_to_sync

from llm_pool.backends import make_pool
from llm_pool.calling.answers import Answer
from llm_pool.calling.direct import Sender
from llm_pool.calling.record import Call, Caller
from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream
from llm_pool.calling.through_httpx import ThroughHTTPX
from llm_pool.conf import PoolSettings
from llm_pool.conf.request_builder import RequestBuilder
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.providers.base import Messages
from llm_pool.providers.results import Completion
from llm_pool.transports.errors import translate_httpx_errors

if TYPE_CHECKING:
    from llm_pool.diagnostics import CheckReport

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
        self._made_at = time.monotonic()
        self._provider = settings.provider
        self._builder = RequestBuilder(settings)
        self._through_httpx = ThroughHTTPX(settings, self.engine, self._builder)
        self._sender = Sender(settings, self.engine, self._builder, self._through_httpx)
        self._caller = Caller(self.alias, self._provider.name, self.engine)

    # Calls to a model

    def complete(self, messages: Messages, **params: Any) -> Completion:
        """The model's whole answer. For sync views, tasks and the shell.

        Blocks the thread. In an async view it would hold up all others, and warns: use ``acomplete``.
        """
        path, body = self._prepared(messages, params, stream=False)
        with self._call("complete", params) as call:
            return self._completion(self._sender.fetch(path, body, call.marks), call)

    async def acomplete(self, messages: Messages, **params: Any) -> Completion:
        """The model's whole answer. For async views."""
        path, body = self._prepared(messages, params, stream=False)
        with self._call("complete", params) as call:
            return self._completion(await self._sender.afetch(path, body, call.marks), call)

    def stream(self, messages: Messages, **params: Any) -> CompletionStream:
        """The model's answer as it comes. The call begins at the first step of the iteration."""
        path, body = self._prepared(messages, params, stream=True)
        return CompletionStream(self._sender, self._provider, path, body, self._call("stream", params))

    def astream(self, messages: Messages, **params: Any) -> AsyncCompletionStream:
        """The model's answer as it comes. The call begins at the first step of the iteration."""
        path, body = self._prepared(messages, params, stream=True)
        return AsyncCompletionStream(self._sender, self._provider, path, body, self._call("stream", params))

    # Calls to anything else

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Any endpoint, ``path`` relative to BASE_URL; ``kwargs`` as for ``httpx.Client.request``."""
        with Call(self._caller, "request", None) as call, translate_httpx_errors():
            response = self.client.request(method, path, **_with_marks(kwargs, call))
            call.status_code = response.status_code
            return response

    async def arequest(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Any endpoint, ``path`` relative to BASE_URL; ``kwargs`` as for ``httpx.AsyncClient.request``."""
        with Call(self._caller, "request", None) as call, translate_httpx_errors():
            response = await self.aclient.request(method, path, **_with_marks(kwargs, call))
            call.status_code = response.status_code
            return response

    @property
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` on the pool, with the provider's headers for its own origin.

        There is one for all, and closing it does nothing: the pool is what is closed.
        """
        return self._through_httpx.client

    @property
    def aclient(self) -> httpx.AsyncClient:
        """``client`` for async code, good for any event loop."""
        return self._through_httpx.aclient

    # The pool itself

    def stats(self) -> PoolStats:
        """What the pool looks like now."""
        return self.engine.stats()

    async def acheck(self, *, timeout: float = 10.0, live: int = 0) -> CheckReport:
        """Try everything between this process and the provider, step by step; the report says what to do.

        No step takes longer than ``timeout`` seconds; ``live`` cheap calls are made at once. The check opens
        connections of its own, beside the pool's: it sees what a new process would see. The pool's size is
        held against the calls that it has carried so far. Raises nothing.
        """
        from llm_pool.diagnostics import Sizing, run_checks  # noqa: PLC0415  most processes never check

        stats = self.stats()
        load = Sizing.from_stats(stats, time.monotonic() - self._made_at)
        return await run_checks(self.settings, timeout=timeout, live=live, load=load)

    def check(self, *, timeout: float = 10.0, live: int = 0) -> CheckReport:
        """``acheck`` for sync code."""
        return async_to_sync(self.acheck)(timeout=timeout, live=live)

    async def aprewarm(self) -> None:
        """Open ``min_connections`` in the background and keep them open; have the trust store read too."""
        await self.engine.prewarm(self._builder.origin)

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

    def _call(self, operation: str, params: dict[str, Any]) -> Call:
        model = params.get("model") or self.settings.model
        return Call(self._caller, operation, model if isinstance(model, str) else None)

    def _completion(self, answer: Answer, call: Call) -> Completion:
        call.status_code = answer.head.status_code
        if not 200 <= answer.head.status_code < 300:
            raise self._provider.error_from_response(answer.head, answer.body)
        completion = self._provider.parse_completion(answer.head, answer.body, call.timing())
        call.usage = completion.usage
        return completion


def _with_marks(kwargs: dict[str, Any], call: Call) -> dict[str, Any]:
    """``kwargs`` of an httpx request, with the call's marks among its extensions."""
    extensions = {**(kwargs.get("extensions") or {}), "llm_pool_marks": call.marks}
    return {**kwargs, "extensions": extensions}
