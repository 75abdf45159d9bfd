"""``on_done`` of ``event_stream``: called once with the answer or the error, whatever reads the response."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, Client
from django.urls import path

from llm_pool import pools
from llm_pool.exceptions import AuthenticationFailed, StreamInterrupted
from llm_pool.http import event_stream
from llm_pool.providers.results import Completion
from testbed.behaviours import json_reply
from tests.fixtures.callers import until
from tests.fixtures.events import events_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from llm_pool.http import EventStreamResponse
    from testbed import Script, ScriptedServer

STREAMS = pytest.mark.parametrize("kind", ["stream", "astream"])
results: list[Any] = []
threads: list[threading.Thread] = []


def save(result: Any) -> None:
    """As a view's function that uses the ORM: Django refuses that in a thread that runs an event loop."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    threads.append(threading.current_thread())
    results.append(result)


async def asave(result: Any) -> None:
    await asyncio.sleep(0)
    results.append(result)


class Saver:
    """A callable object, as a receiver of results may be."""

    async def __call__(self, result: Any) -> None:
        await asave(result)


FUNCTIONS = {
    "sync": save,
    "async": asave,
    "partial": partial(asave),
    "object": Saver(),
    "lambda": lambda result: asave(result),  # noqa: PLW0108 - it is no coroutine function
}
functions = pytest.mark.parametrize("function", FUNCTIONS)


def answer(request: Any, kind: str, function: str) -> EventStreamResponse:
    return event_stream(getattr(pools["default"], kind)("hello"), on_done=FUNCTIONS[function])


async def aanswer(request: Any, kind: str, function: str) -> EventStreamResponse:
    return answer(request, kind, function)


urlpatterns = [path("sync/<kind>/<function>", answer), path("async/<kind>/<function>", aanswer)]


@pytest.fixture(autouse=True)
def fresh(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    results.clear()
    threads.clear()


def assert_whole() -> None:
    (result,) = results
    assert isinstance(result, Completion)
    assert result.text == "onetwothree"


@functions
@STREAMS
@pytest.mark.parametrize("view", ["sync", "async"])
def test_it_gets_the_answer_under_wsgi(
    view: str, kind: str, function: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """A sync function runs on the test's own thread: only there a test sees its database transaction."""
    configure(upstream)
    response = Client().get(f"/{view}/{kind}/{function}")
    assert events_of(response)[-1].name == "done"
    assert_whole()
    assert all(thread is threading.current_thread() for thread in threads)


@functions
@STREAMS
async def test_it_gets_the_answer_under_asgi(
    kind: str, function: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    response = await AsyncClient().get(f"/async/{kind}/{function}")
    assert events_of([piece async for piece in response])[-1].name == "done"
    assert_whole()


@functions
@STREAMS
def test_it_gets_the_answer_of_a_response_that_nothing_serves(
    kind: str, function: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    response = event_stream(getattr(configure(upstream), kind)("hello"), on_done=FUNCTIONS[function])
    assert events_of(response)[-1].name == "done"
    response.close()
    assert_whole()


@functions
@STREAMS
def test_it_gets_the_error(
    kind: str,
    function: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    pool = configure(serve_first(json_reply({"error": {"message": "No."}}, status=401)))
    list(event_stream(getattr(pool, kind)("hello"), on_done=FUNCTIONS[function]))
    (result,) = results
    assert isinstance(result, AuthenticationFailed)


@functions
@STREAMS
def test_it_gets_the_text_so_far_when_a_wsgi_server_closes_the_response(
    kind: str, function: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    response = event_stream(getattr(configure(upstream), kind)("hello"), on_done=FUNCTIONS[function])
    assert b"one" in next(iter(response))
    response.close()
    (result,) = results
    assert isinstance(result, StreamInterrupted)
    assert (result.partial, result.request_id) == ("one", "0")


@functions
async def test_a_response_that_is_closed_on_an_event_loop_calls_it_soon(
    function: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """As ``AsyncClient`` does after a test that reads a part."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    configure(upstream)
    response = await AsyncClient().get(f"/async/astream/{function}")
    assert b"one" in await anext(aiter(response))
    response.close()
    await until(lambda: results)
    assert results[0].partial == "one"


@STREAMS
def test_it_is_called_if_the_response_is_never_read(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    response = event_stream(getattr(configure(upstream), kind)("hello"), on_done=save)
    response.close()
    (result,) = results
    assert isinstance(result, StreamInterrupted)
    assert result.partial == ""


@pytest.mark.parametrize("function", ["sync", "async"])
def test_its_own_error_is_logged_and_changes_nothing(
    function: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_result: Any) -> None:
        raise LookupError("no such conversation")

    async def afail(_result: Any) -> None:
        fail(_result)

    stream = configure(upstream).stream("hello")
    response = event_stream(stream, on_done=fail if function == "sync" else afail)
    assert events_of(response)[-1].name == "done"
    assert "no such conversation" in caplog.text
    caplog.clear()  # its traceback keeps a thread of asgiref's async_to_sync


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("method", ["get", "head"])
def test_it_is_not_called_if_no_call_is_made(
    method: str, is_read: bool, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """For a HEAD request, whose body a server may leave unread, and a browser that comes back."""
    configure(upstream)
    headers = {"Last-Event-ID": "2"} if method == "get" else {}
    response = getattr(Client(), method)("/sync/stream/sync", headers=headers)
    if is_read:
        list(response)
    response.close()
    assert not results


def test_what_is_no_function_is_refused_at_once(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    with pytest.raises(TypeError, match="on_done must be a function of one argument, not a str"):
        event_stream(configure(upstream).stream("hello"), on_done="save")  # type: ignore[arg-type]
