"""``LLMPool``, the public class of a pool: calls to a model, httpx clients, statistics, check, close."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import httpx
from asgiref.sync import async_to_sync

from llm_pool.backends import make_pool
from llm_pool.calling.answers import Answer
from llm_pool.calling.call import Call, CallingPool
from llm_pool.calling.direct import Sender
from llm_pool.calling.functions import with_definitions
from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream
from llm_pool.calling.structured import OutputType, is_json, output_type
from llm_pool.calling.through_httpx import ThroughHTTPX
from llm_pool.conf.options import UNSET, Unset, with_options
from llm_pool.conf.request_builder import RequestBuilder
from llm_pool.conf.settings import PoolSettings
from llm_pool.engine.clock import monotonic
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.exceptions import InvalidRequest
from llm_pool.providers import embeddings
from llm_pool.providers.base import EmbeddingInput, Messages
from llm_pool.providers.results import Completion, Embeddings
from llm_pool.transports.errors import translate_httpx_errors
from llm_pool.transports.query import Parameters

if TYPE_CHECKING:
    from llm_pool.diagnostics import CheckReport

__all__ = ["LLMPool"]


class LLMPool:
    """The pool of one alias of ``settings.LLM_POOL``. Safe to share between threads, tasks and event loops.

    ``settings``   the pool's settings
    ``alias``      the pool's name in ``LLM_POOL``
    ``engine``     the engine's pool, which has the connections
    ``following``  returns the pool that ``client`` and ``aclient`` use once this one is closed; without it
                   they raise PoolClosed then

    Every call raises the errors of ``llm_pool.exceptions``, all of them ``LLMPoolError``:

    - before anything is sent: ``InvalidMessages``, ``InvalidParameter`` and ``InvalidRequest``; ``PoolFull``
      if ``max_waiting`` calls are queued, ``PoolTimeout`` if no connection is free within the pool timeout,
      ``ConnectFailed`` or a subclass of it if no connection can be made;
    - at any time: ``TotalTimeout``, and ``PoolClosed`` if the pool is closed before or during the call;
    - while the request is being sent and the answer is being read: ``WriteTimeout``, ``WriteFailed``,
      ``ReadTimeout``, ``ReadFailed`` and ``ProtocolError``;
    - for a model's answer: ``APIStatusError`` or its subclass for the status (``RateLimited``, ...) if the
      status is not 2xx, ``APIError`` if the status is 2xx but the answer contains an error object,
      ``InvalidResponse`` if the answer does not have the API's format, and ``InvalidOutput`` if it does not
      fit the type in ``response_format``.

    A missing or malformed API key raises Django's ``ImproperlyConfigured``.
    """

    def __init__(self, settings: PoolSettings, following: Callable[[], LLMPool] | None = None) -> None:
        self.settings = settings
        self.alias = settings.alias
        self.engine = make_pool(settings.engine, settings.pool, settings.alias)
        self._created_at = monotonic()
        self._provider = settings.provider
        self._builder = RequestBuilder(settings)
        self._through_httpx = ThroughHTTPX(
            settings,
            self.engine,
            self._builder,
            None if following is None else lambda: following()._through_httpx,
        )
        self._sender = Sender(settings, self.engine, self._builder, self._through_httpx)
        self._calling_pool = CallingPool(self.alias, self._provider.name, self.engine)
        self._has_options = False

    def with_options(
        self,
        *,
        timeout: float | Mapping[str, float | None] | Unset | None = UNSET,
        headers: Mapping[str, str] | None = None,
        query: Parameters | None = None,
        idempotency_key: str | None = None,
        retries: Any = UNSET,
        tenant: Any = UNSET,
        priority: Any = UNSET,
    ) -> Self:
        """Return this pool with options for the calls that are made through the returned object.

        It has the same connections, limits and statistics, and closing it closes the pool. Its own
        ``with_options`` adds to the options. It is cheap, and can be kept while the pool is open. It has no
        ``client`` and no ``aclient``: all callers share these.

        ``timeout``          seconds for a whole call, or a dict with keys of TIMEOUTS: ``{"read": 5.0}``.
                             None means no limit
        ``headers``          replace HEADERS and the provider's headers of the same names, in any case. One
                             with a key replaces API_KEY and each other header with a key
        ``query``            added to QUERY; replaces parameters of the same names
        ``idempotency_key``  sent as ``Idempotency-Key``. A request with it is sent again if its connection
                             breaks before the response begins
        ``retries``, ``tenant``, ``priority``  not supported yet

        Raises ``InvalidParameter`` for an option that is not valid or not supported yet.
        """
        other = copy(self)
        other.settings = with_options(
            self.settings,
            timeout,
            headers,
            query,
            idempotency_key,
            retries=retries,
            tenant=tenant,
            priority=priority,
        )
        other._has_options = True
        other._builder = self._builder.with_settings(other.settings)
        other._through_httpx = self._through_httpx.with_settings(other.settings, other._builder)
        other._sender = Sender(other.settings, self.engine, other._builder, other._through_httpx)
        return other

    # Calls to a model

    def complete(self, messages: Messages, **params: Any) -> Completion:
        """Call the model and return its whole answer. For sync views, tasks and the shell.

        ``messages`` is a list of dicts in the format of the provider's API, or a ``str``, which is sent as
        one user message. ``params`` go into the request's body unchanged: ``model``, ``temperature``,
        ``tools``, ... But ``response_format`` can also be a type, such as a pydantic model or a dataclass:
        the answer is then JSON that fits it, ``Completion.parsed`` is its value, and ``InvalidOutput`` is
        raised if the answer does not fit. ``tools`` can contain Python functions: see ``llm_pool.tools``.

        Blocks the thread until the answer has arrived. On the server's event loop ``complete`` delays every
        other request, and emits a RuntimeWarning with the calling line: use ``acomplete`` there. ``LLMPool``
        lists the errors.
        """
        path, body, output = self._encode(messages, params, stream=False)
        with self._call("complete", params) as call:
            return self._completion(self._sender.fetch(path, body, call.marks), call, output)

    async def acomplete(self, messages: Messages, **params: Any) -> Completion:
        """``complete`` for async code."""
        path, body, output = self._encode(messages, params, stream=False)
        with self._call("complete", params) as call:
            return self._completion(await self._sender.afetch(path, body, call.marks), call, output)

    def stream(self, messages: Messages, **params: Any) -> CompletionStream:
        """Return a stream of the model's answer: ``for chunk in pool.stream(...)``.

        The arguments are those of ``complete``. The request is sent at the first step of the iteration, and
        each step blocks the thread until the next chunk has arrived. A stream that is not read to its end
        must be closed.

        Raises ``InvalidMessages`` and ``InvalidParameter`` at once; the iteration raises the other errors.
        """
        path, body, output = self._encode(messages, params, stream=True)
        call = self._call("stream", params)
        return CompletionStream(self._sender, self._provider, path, body, call, output=output)

    def astream(self, messages: Messages, **params: Any) -> AsyncCompletionStream:
        """``stream`` for async code: ``async for chunk in pool.astream(...)``."""
        path, body, output = self._encode(messages, params, stream=True)
        call = self._call("stream", params)
        return AsyncCompletionStream(self._sender, self._provider, path, body, call, output=output)

    def embed(self, inputs: EmbeddingInput | Sequence[EmbeddingInput], **params: Any) -> Embeddings:
        """Return a vector for each text of ``inputs``.

        ``inputs`` is a ``str``, a list of ``str``, or of lists of tokens. ``params`` go into the request's
        body unchanged: ``model``, ``dimensions``, ...

        If there are more texts than the API accepts in one request, they are sent in several requests, one
        after the other, each with its own wait for a connection and its own ``CallRecord``. If one of them
        fails, ``embed`` raises its error, and sends no more. Blocks the thread, as ``complete`` does.

        Raises ``InvalidRequest`` if the provider has no embeddings, and the errors that ``LLMPool`` lists.
        """
        answers = []
        for path, body, count in self._encode_inputs(inputs, params):
            with self._call("embed", params) as call:
                answer = self._sender.fetch(path, body, call.marks)
                answers.append(self._embeddings(answer, count, call))
        return embeddings.join(answers)

    async def aembed(self, inputs: EmbeddingInput | Sequence[EmbeddingInput], **params: Any) -> Embeddings:
        """``embed`` for async code."""
        answers = []
        for path, body, count in self._encode_inputs(inputs, params):
            with self._call("embed", params) as call:
                answer = await self._sender.afetch(path, body, call.marks)
                answers.append(self._embeddings(answer, count, call))
        return embeddings.join(answers)

    # Calls to any other endpoint

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Call any endpoint and return its response, whatever its status.

        ``path`` is relative to BASE_URL; ``kwargs`` are those of ``httpx.Client.request``. Blocks the thread,
        as ``complete`` does. Raises LLMPoolError if no response arrives, and TypeError or ValueError for
        ``kwargs`` that httpx does not take.
        """
        with Call(self._calling_pool, "request", None) as call, translate_httpx_errors():
            options = self._through_httpx.request_options(kwargs, call.marks)
            response = self._through_httpx.client.request(method, path, **options)
            call.status_code = response.status_code
            return response

    async def arequest(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """``request`` for async code; ``kwargs`` are those of ``httpx.AsyncClient.request``."""
        with Call(self._calling_pool, "request", None) as call, translate_httpx_errors():
            options = self._through_httpx.request_options(kwargs, call.marks)
            response = await self._through_httpx.aclient.request(method, path, **options)
            call.status_code = response.status_code
            return response

    @property
    def client(self) -> httpx.Client:
        """The pool's ``httpx.Client``. Requests to the origin of BASE_URL get the API key and HEADERS.

        Headers that the caller sets are not replaced. All callers share this client, so it keeps no cookies,
        and closing it does nothing: close the pool instead. The client can be kept: when the pool is closed,
        or made anew because the settings have changed, the client's next call uses ``pools[alias]``.

        Raises RuntimeError on the result of ``with_options``.
        """
        self._raise_if_options("client")
        return self._through_httpx.client

    @property
    def aclient(self) -> httpx.AsyncClient:
        """The pool's ``httpx.AsyncClient``. It works on any event loop; for the rest see ``client``."""
        self._raise_if_options("aclient")
        return self._through_httpx.aclient

    # The pool itself

    def stats(self) -> PoolStats:
        """Return the current state of the pool, and its counters since it was made, in this process.

        Durations are in seconds. Can be called from any thread; does not wait for connections or calls.
        """
        return self.engine.stats()

    async def acheck(self, *, timeout: float = 10.0, live: int = 0) -> CheckReport:
        """Check each step between this process and the provider; return a report with ``verdict``, ``steps``.

        The steps are DNS, TCP, TLS, authentication, reuse of the connection, HTTP/2, rate limits, settings,
        and ``live`` cheap GET requests at the same time. During the check no timeout of the pool is longer
        than ``timeout`` (seconds). The check opens its own connections, as a new process would. It compares
        the pool's size with the calls that the pool has carried so far.

        A problem is not raised: it becomes a finding in the report, with advice.
        """
        from llm_pool.diagnostics import Sizing, run_checks  # noqa: PLC0415  most processes never check

        stats = self.stats()
        load = Sizing.from_stats(stats, monotonic() - self._created_at)
        return await run_checks(self.settings, timeout=timeout, live=live, load=load)

    def check(self, *, timeout: float = 10.0, live: int = 0) -> CheckReport:
        """``acheck`` for sync code. Raises RuntimeError in a thread that runs an event loop."""
        return async_to_sync(self.acheck)(timeout=timeout, live=live)

    async def aprewarm(self) -> None:
        """Open ``min_connections`` connections to BASE_URL, and keep at least as many open from now on.

        Returns at once: the TLS trust store is loaded and the connections are opened in the background.
        """
        await self.engine.prewarm(self._builder.origin)

    def drain(self, timeout: float | None = None) -> bool:
        """Close every connection that is open now: idle ones at once, the others when their calls have ended.

        Calls in progress finish, and new calls get new connections. Returns True when all of the old
        connections have closed. Returns False after ``timeout`` seconds; the remaining connections still
        close when their calls have ended. With None, ``drain`` waits without limit. Blocks the thread.
        """
        return self.engine.drain(timeout)

    async def adrain(self, timeout: float | None = None) -> bool:
        """``drain`` for async code."""
        return await self.engine.adrain(timeout)

    def close(self) -> None:
        """Close the pool. Queued calls, calls in progress and new calls fail with ``PoolClosed``.

        Waits up to 2 seconds until the connections have closed; then aborts the others, and waits up to 2
        seconds more. Does not wait if it is called on the server's event loop. Can be called more than once.
        The next use of ``pools[alias]`` makes a new pool.
        """
        self.engine.close()

    async def aclose(self) -> None:
        """Do the same as ``close`` for async code, but wait for the connections on any event loop."""
        await self.engine.aclose()

    def __repr__(self) -> str:
        options = " with options" if self._has_options else ""
        return f"<LLMPool {self.alias!r} {self.settings.base_url}{options}>"

    def _raise_if_options(self, name: str) -> None:
        if self._has_options:
            raise RuntimeError(
                f"with_options() does not apply to {name}, which all callers share; use "
                f"pools[{self.alias!r}].{name}, and give timeout, headers and params with each request."
            )

    def _encode(
        self, messages: Messages, params: dict[str, Any], *, stream: bool
    ) -> tuple[str, bytes, OutputType | None]:
        """Return path and encoded body of a call to the model, and the type of its answer if one is given."""
        provider, output = self._provider, None
        if "response_format" in params and not is_json(params["response_format"]):
            output = output_type(provider, params["response_format"])
            params = output.add_to(params)
        tools = params.get("tools")
        if tools and isinstance(tools, (list, tuple)) and any(map(callable, tools)):
            params = with_definitions(provider, params)
        request = provider.completion_request(messages, self.settings.model, params, stream=stream)
        return request.path, provider.encode(request.body), output

    def _encode_inputs(self, inputs: Any, params: dict[str, Any]) -> list[tuple[str, bytes, int]]:
        """Return the path, the encoded body and the number of texts of each request for embeddings.

        All are encoded before the first is sent: invalid input costs nothing.
        """
        provider = self._provider
        texts = embeddings.as_inputs(inputs)
        encoded = []
        for part in embeddings.split(texts, provider.max_embedding_inputs, provider.max_embedding_tokens):
            path, body = provider.embedding_request(part, self.settings.model, params)
            try:
                encoded.append((path, provider.encode(body), len(part)))
            except InvalidRequest:
                provider.encode({"inputs": texts})  # raises the error with the index among all texts
                raise
        return encoded

    def _call(self, operation: str, params: dict[str, Any]) -> Call:
        model, choices = params.get("model") or self.settings.model, params.get("n")
        return Call(
            self._calling_pool,
            operation,
            model if isinstance(model, str) else None,
            choices if type(choices) is int else 1,
        )

    def _accept(self, answer: Answer, call: Call) -> None:
        """Record the status of ``answer``. Raise its error if the status is not 2xx."""
        call.status_code = answer.head.status_code
        if not 200 <= answer.head.status_code < 300:
            raise self._provider.error_from_response(answer.head, answer.body)

    def _embeddings(self, answer: Answer, count: int, call: Call) -> Embeddings:
        self._accept(answer, call)
        result = self._provider.parse_embeddings(answer.head, answer.body, count, call.timing())
        call.usage = result.usage
        return result

    def _completion(self, answer: Answer, call: Call, output: OutputType | None) -> Completion:
        self._accept(answer, call)
        head = answer.head if call.choices == 1 else answer.head._replace(choices=call.choices)
        completion = self._provider.parse_completion(head, answer.body, call.timing())
        call.usage = completion.usage
        return completion if output is None else output.parse(completion)
