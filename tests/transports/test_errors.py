"""What httpx refuses or cannot do is an error of this package, and still httpx's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from llm_pool import exceptions
from testbed.behaviours import echo, reply
from tests.fixtures.waiting import becomes_true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

both = pytest.mark.parametrize("kind", ["request", "arequest"])


class Twice(httpx.Auth):
    """Sends each request twice, as a challenge does."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield request
        yield request


def pieces(kind: str) -> Iterator[bytes] | AsyncIterator[bytes]:
    """A body that can be read once, for a sync or an async client."""

    def sync_pieces() -> Iterator[bytes]:
        yield b"a prompt"

    async def async_pieces() -> AsyncIterator[bytes]:
        yield b"a prompt"

    return sync_pieces() if kind == "request" else async_pieces()


def send(kind: str, pool: LLMPool, method: str = "POST", path: str = "x", **options: Any) -> httpx.Response:
    """Send by ``request``, or by ``arequest`` on a new event loop."""
    if kind == "request":
        return pool.request(method, path, **options)
    return asyncio.run(pool.arequest(method, path, **options))


@pytest.fixture
def looping(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    """A server that redirects each request to itself."""
    return serve(reply(307, headers={"Location": "/v1/x"}))


@both
def test_redirects_without_end(kind: str, configure: Callable[..., LLMPool], looping: ScriptedServer) -> None:
    pool = configure(looping)
    with pytest.raises(exceptions.TooManyRedirects) as caught:
        send(kind, pool, follow_redirects=True)
    assert isinstance(caught.value, exceptions.LLMPoolError)
    assert isinstance(caught.value, httpx.TooManyRedirects)
    assert caught.value.request.url == f"{looping.url}/v1/x"
    assert pool.stats().in_use == 0


@both
@pytest.mark.parametrize("options", [{"follow_redirects": True}, {"auth": Twice()}])
def test_a_body_that_would_be_sent_twice_but_is_a_generator(
    options: dict[str, Any], kind: str, configure: Callable[..., LLMPool], looping: ScriptedServer
) -> None:
    pool = configure(looping)
    with pytest.raises(exceptions.StreamConsumed, match="give the body as bytes") as caught:
        send(kind, pool, content=pieces(kind), **options)
    assert isinstance(caught.value, exceptions.LLMPoolError)
    assert isinstance(caught.value, httpx.StreamConsumed)
    assert becomes_true(lambda: pool.stats().in_use == 0)


NOT_ENCODABLE: dict[str, dict[str, Any]] = {
    "a header's value": {"headers": {"X-Name": "Zo\xeb"}},
    "a header's name": {"headers": {"X-Zo\xeb": "a"}},
    "the path": {"path": "/\ud83d"},
    "a parameter": {"params": {"a": "\ud83d"}},
    "JSON": {"json": {"a": "\ud83d"}},
    "text": {"content": "\ud83d"},
    "a form": {"data": {"a": "\ud83d"}},
    "credentials": {"auth": ("\ud83d", "")},
}


@both
@pytest.mark.parametrize("what", NOT_ENCODABLE)
def test_what_cannot_be_encoded(
    what: str, kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(echo)
    with pytest.raises(exceptions.InvalidParameter, match="cannot encode") as caught:
        send(kind, configure(server), **NOT_ENCODABLE[what])
    assert isinstance(caught.value, ValueError)
    assert "Zo" not in str(caught.value)  # a header may hold a key
    assert not server.requests


@both
def test_a_url_that_cannot_be_parsed(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(echo))
    with pytest.raises(exceptions.InvalidURL, match="the URL cannot be used") as caught:
        send(kind, pool, path="http://[::1")
    assert isinstance(caught.value, exceptions.InvalidRequest)
    assert isinstance(caught.value, httpx.InvalidURL)


@both
def test_a_body_that_cannot_be_decompressed(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(reply(200, b"not compressed", {"Content-Encoding": "gzip"})))
    with pytest.raises(exceptions.ProtocolError):
        send(kind, pool, headers={"Accept-Encoding": "gzip"})
    assert pool.stats().in_use == 0


class TheirsError(Exception):
    """An exception of the caller's own code."""


@both
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"json": object()}, TypeError),
        ({"json": float("nan")}, ValueError),
        ({"no_such_option": 1}, TypeError),
        ({"auth": lambda request: exec("raise TheirsError", {"TheirsError": TheirsError})}, TheirsError),
    ],
)
def test_errors_of_the_callers_own_arguments_and_code_stay(
    options: dict[str, Any],
    expected: type[Exception],
    kind: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    with pytest.raises(expected) as caught:
        send(kind, configure(serve(echo)), **options)
    assert not isinstance(caught.value, exceptions.LLMPoolError)
