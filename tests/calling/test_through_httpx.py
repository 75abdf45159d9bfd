"""Mocks and instrumentation that are written for httpx see every call."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import pytest
import respx

from llm_pool import exceptions
from testbed.behaviours import stall
from tests.fixtures.calls import CALLS, STREAMS, WHOLE, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_httpx import HTTPXMock

    from llm_pool.calling.pool import LLMPool
    from llm_pool.providers.results import Completion
    from testbed import ScriptedServer

PROVIDER = "https://api.test/v1"
URL = f"{PROVIDER}/chat/completions"
COMPLETION = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "mocked"}}]}
EVENTS = 'data: {"choices": [{"index": 0, "delta": {"content": "mocked"}}]}\n\ndata: [DONE]\n\n'


@pytest.fixture
def pool(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> LLMPool:
    """A pool whose provider does not exist: a call that is not mocked fails."""
    return configure(upstream, BASE_URL=PROVIDER)


def mocked_response(call: str) -> httpx.Response:
    return httpx.Response(200, json=COMPLETION) if call in WHOLE else httpx.Response(200, text=EVENTS)


def assert_timed(call: str, completion: Completion) -> None:
    """A mock's answer has a ``timing`` too: views and templates can read it without a check."""
    timing = completion.timing
    assert timing is not None
    assert (timing.queued, timing.dialing, timing.reused) == (0, 0, False)
    assert timing.total > 0
    assert (timing.first_token is not None) == (call in STREAMS)


def ask_by_client(kind: str, pool: LLMPool) -> httpx.Response:
    if kind == "client":
        return pool.client.post("chat/completions", json={})
    if kind == "request":
        return pool.request("POST", "chat/completions", json={})
    method = pool.aclient.post if kind == "aclient" else functools.partial(pool.arequest, "POST")
    return asyncio.run(method("chat/completions", json={}))


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@pytest.mark.parametrize("call", CALLS)
def test_respx_intercepts_calls(call: str, using: str, pool: LLMPool, secret: str) -> None:
    with respx.mock(using=using) as router:
        route = router.post(URL).mock(return_value=mocked_response(call))
        completion = ask(call, pool, temperature=0)
    assert completion.text == "mocked"
    assert_timed(call, completion)
    assert route.call_count == 1
    request = route.calls.last.request
    assert request.headers["authorization"] == f"Bearer {secret}"
    assert b'"temperature":0' in request.content


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@pytest.mark.parametrize("kind", ["client", "aclient", "request", "arequest"])
def test_respx_intercepts_clients(kind: str, using: str, pool: LLMPool) -> None:
    with respx.mock(using=using) as router:
        router.post(URL).mock(return_value=httpx.Response(200, json=COMPLETION))
        assert ask_by_client(kind, pool).json() == COMPLETION


@pytest.mark.parametrize("call", CALLS)
def test_the_respx_fixture_intercepts_calls(call: str, pool: LLMPool, respx_mock: respx.MockRouter) -> None:
    respx_mock.post(URL).mock(return_value=mocked_response(call))
    assert ask(call, pool).text == "mocked"


@pytest.mark.parametrize("call", CALLS)
def test_the_respx_decorator_intercepts_calls(call: str, pool: LLMPool) -> None:
    @respx.mock
    def decorated() -> None:
        respx.post(URL).respond(429, json={"error": {"message": "Slow down."}}, headers={"retry-after": "3"})
        with pytest.raises(exceptions.RateLimited, match=r"Slow down\.") as caught:
            ask(call, pool)
        assert caught.value.retry_after == 3.0

    decorated()


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError, exceptions.ConnectFailed),
        (httpx.ConnectTimeout, exceptions.ConnectTimeout),
        (httpx.ReadTimeout, exceptions.ReadTimeout),
        (httpx.PoolTimeout, exceptions.PoolTimeout),
        (httpx.RemoteProtocolError, exceptions.ProtocolError),
    ],
)
def test_an_error_that_a_mock_raises_becomes_the_pools_error(
    raised: type[httpx.TransportError], kind: type[Exception], call: str, using: str, pool: LLMPool
) -> None:
    with respx.mock(using=using) as router:
        router.post(URL).mock(side_effect=raised("by the mock"))
        with pytest.raises(kind, match="by the mock") as caught:
            ask(call, pool)
    assert isinstance(caught.value, exceptions.LLMPoolError)
    assert isinstance(caught.value, raised)
    assert caught.value.request.url == URL


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@pytest.mark.parametrize("call", CALLS)
def test_calls_that_respx_passes_through_use_the_pool(
    call: str, using: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    with respx.mock(using=using) as router:
        router.route(host="127.0.0.1").pass_through()
        for _ in range(3):
            assert ask(call, pool).text
    assert len(upstream.requests) == pool.stats().requests == 3


@pytest.mark.parametrize("call", CALLS)
def test_pytest_httpx_intercepts_calls(call: str, pool: LLMPool, httpx_mock: HTTPXMock) -> None:
    if call in WHOLE:
        httpx_mock.add_response(url=URL, method="POST", json=COMPLETION)
    else:
        httpx_mock.add_response(url=URL, method="POST", text=EVENTS)
    completion = ask(call, pool)
    assert completion.text == "mocked"
    assert_timed(call, completion)
    assert len(httpx_mock.get_requests()) == 1


@pytest.mark.parametrize("kind", ["client", "aclient", "request", "arequest"])
def test_pytest_httpx_intercepts_clients(kind: str, pool: LLMPool, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=URL, json=COMPLETION)
    assert ask_by_client(kind, pool).json() == COMPLETION


@pytest.mark.httpx_mock(should_mock=lambda request: request.url.host != "127.0.0.1")
@pytest.mark.parametrize("call", CALLS)
def test_calls_that_pytest_httpx_does_not_mock_use_the_pool(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, httpx_mock: HTTPXMock
) -> None:
    assert ask(call, configure(upstream)).text
    assert len(upstream.requests) == 1


# Instrumentation: it sees each call, and passes it on.


class Watcher:
    """Wraps methods as instrumentation does; ``seen`` has an item for each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        self._patch = monkeypatch

    def watch(self, place: Any, name: str, *, wraps: bool) -> None:
        real = getattr(place, name)

        def watching(*args: Any, **kwargs: Any) -> Any:  # returns a coroutine if ``real`` does
            self.seen.append(name)
            return real(*args, **kwargs)

        self._patch.setattr(place, name, functools.wraps(real)(watching) if wraps else watching)

    def watch_with_a_proxy(self, place: Any, name: str) -> None:
        self._patch.setattr(place, name, Proxy(getattr(place, name), self.seen))


class Proxy:
    """Replaces a function and binds like one, as wrapt's proxies do."""

    def __init__(self, wrapped: Any, seen: list[Any]) -> None:
        self.__wrapped__ = wrapped
        self.seen = seen

    def __get__(self, instance: Any, owner: Any) -> Any:
        return functools.partial(self, instance) if instance is not None else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append("called")
        return self.__wrapped__(*args, **kwargs)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    return Watcher(monkeypatch)


# The classes by name, as in a module that imports them.
AsyncClient, Client = httpx.AsyncClient, httpx.Client
AsyncHTTPTransport, HTTPTransport = httpx.AsyncHTTPTransport, httpx.HTTPTransport
AsyncConnectionPool, ConnectionPool = httpcore.AsyncConnectionPool, httpcore.ConnectionPool
HOOK_POINTS: list[tuple[type, type, str, str]] = [
    (Client, AsyncClient, "send", "send"),
    (Client, AsyncClient, "_send_single_request", "_send_single_request"),
    (HTTPTransport, AsyncHTTPTransport, "handle_request", "handle_async_request"),
    (ConnectionPool, AsyncConnectionPool, "handle_request", "handle_async_request"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", ["bare", "wraps", "proxy"])
@pytest.mark.parametrize("point", HOOK_POINTS, ids=lambda point: point[0].__name__ + "." + point[2])
def test_a_wrapped_method_sees_every_call(
    point: tuple[type, type, str, str],
    way: str,
    call: str,
    watcher: Watcher,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    pool = configure(upstream)
    assert ask(call, pool).text
    for place, name in ((point[0], point[2]), (point[1], point[3])):
        if way == "proxy":
            watcher.watch_with_a_proxy(place, name)
        else:
            watcher.watch(place, name, wraps=way == "wraps")
    assert ask(call, pool).text
    assert len(watcher.seen) == 1
    assert pool.stats().requests == 2  # the call used the pool


def change_headers(client: Any) -> None:
    client.headers["X-Team"] = "blue"


def replace_headers(client: Any) -> None:
    client.headers = {**client.headers, "X-Team": "blue"}


def change_params(client: Any) -> None:
    client.params = {"api-version": "1"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("change", "target", "team"),
    [
        (change_headers, "/v1/chat/completions", "blue"),
        (replace_headers, "/v1/chat/completions", "blue"),
        (change_params, "/v1/chat/completions?api-version=1", None),
    ],
)
def test_what_is_set_on_a_client_holds_for_every_call(
    change: Callable[[Any], None],
    target: str,
    team: str | None,
    call: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    pool = configure(upstream)
    ask(call, pool)
    for client in (pool.client, pool.aclient):
        change(client)
    ask(call, pool)
    assert [request.target for request in upstream.requests] == ["/v1/chat/completions", target]
    assert [request.headers.get("x-team") for request in upstream.requests] == [None, team]


@pytest.mark.parametrize("call", CALLS)
def test_a_timeout_set_on_a_client_holds_for_every_call(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(stall))
    for client in (pool.client, pool.aclient):
        client.timeout = 0.05  # type: ignore[assignment]
    with pytest.raises(exceptions.ReadTimeout, match=r"0\.05"):
        ask(call, pool)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("part", ["client", "transport"])
def test_a_patched_instance_sees_every_call(
    part: str, call: str, watcher: Watcher, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    for client, handle in ((pool.client, "handle_request"), (pool.aclient, "handle_async_request")):
        if part == "client":
            watcher.watch(client, "send", wraps=True)
        else:
            watcher.watch(client._transport, handle, wraps=True)
    assert ask(call, pool).text
    assert len(watcher.seen) == 1


@pytest.mark.parametrize("call", CALLS)
def test_event_hooks_see_every_call(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool, seen = configure(upstream), []

    async def asee(message: Any) -> None:
        seen.append(type(message))

    pool.client.event_hooks = {"request": [lambda m: seen.append(type(m))], "response": []}
    pool.aclient.event_hooks = {"request": [], "response": [asee]}
    assert ask(call, pool).text
    assert len(seen) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_mounted_transport_takes_the_calls_it_is_mounted_for(call: str, pool: LLMPool) -> None:
    pattern = httpx._utils.URLPattern("https://api.test")
    own = httpx.MockTransport(lambda request: mocked_response(call))
    for client in (pool.client, pool.aclient):
        client._mounts = {pattern: own}  # type: ignore[assignment]
    assert ask(call, pool).text == "mocked"


@pytest.mark.parametrize("call", STREAMS)
def test_a_mocked_stream_that_is_closed_early_closes_its_body(call: str, pool: LLMPool) -> None:
    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield from (EVENTS[:60].encode(), EVENTS[60:].encode())

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    body = Body()
    with respx.mock(using="httpx") as router:
        router.post(URL).mock(return_value=httpx.Response(200, stream=body))
        if call == "stream":
            with pool.stream("hello") as stream:
                next(stream)
        else:

            async def read_one_token() -> None:
                async with pool.astream("hello") as stream:
                    await anext(stream)

            asyncio.run(read_one_token())
    assert body.closed == 1


@pytest.mark.parametrize("call", STREAMS)
def test_an_instrumented_stream_that_is_closed_early_frees_its_connection(
    call: str, watcher: Watcher, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 35: without a warning about an unclosed response."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pool = configure(upstream)
    watcher.watch(httpx.Client, "send", wraps=True)
    watcher.watch(httpx.AsyncClient, "send", wraps=True)
    if call == "stream":
        with pool.stream("hello") as stream:
            assert next(stream).text == "one"
    else:

        async def read_one_token() -> None:
            async with pool.astream("hello") as stream:
                assert (await anext(stream)).text == "one"

        asyncio.run(read_one_token())
    upstream.wait_until(lambda s: len(s.disconnects) == 1)
    assert watcher.seen == ["send"]
