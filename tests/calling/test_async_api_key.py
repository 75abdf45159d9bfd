"""An async API_KEY: for each kind of call, on each kind of thread, and its errors."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from testbed.behaviours import echo
from tests.fixtures.callers import until
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.loops import each_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

__all__ = ["each_loop"]

WHERE: ContextVar[str] = ContextVar("WHERE", default="nowhere")


async def fetch(key: str = "fetched") -> str:
    await asyncio.sleep(0)
    return f" {key}-{WHERE.get()}\n"


class Vault:
    async def __call__(self) -> str:
        return await fetch()


FORMS: dict[str, Any] = {
    "function": fetch,
    "partial": functools.partial(fetch, "fetched"),
    "object": Vault(),
    "lambda": lambda: fetch(),  # noqa: PLW0108 - not known as async before it is called
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
@pytest.mark.parametrize("call", CALLS)
def test_calls_send_the_key_of_an_async_function(
    call: str, form: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """In the caller's context."""
    pool = configure(upstream, API_KEY=FORMS[form])
    WHERE.set("in-a-view")
    assert ask(call, pool).text
    assert upstream.requests[0].headers["authorization"] == "Bearer fetched-in-a-view"


@forms
async def test_clients_send_the_key_of_an_async_function(
    form: str, each_loop: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(echo)
    pool = configure(server, API_KEY=FORMS[form])
    WHERE.set("in-a-view")
    await pool.arequest("GET", "a")
    await pool.aclient.get("a")
    await sync_to_async(pool.request)("GET", "a")
    await asyncio.to_thread(pool.client.get, "a")
    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer fetched-in-a-view"] * 4


@pytest.mark.filterwarnings("ignore:.*blocks the server's event loop:RuntimeWarning")
@forms
async def test_a_sync_call_on_a_running_loop_sends_it_too(
    form: str, each_loop: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """As in a notebook."""
    pool = configure(upstream, API_KEY=FORMS[form])
    WHERE.set("in-a-cell")
    assert pool.complete("hello").text
    assert upstream.requests[0].headers["authorization"] == "Bearer fetched-in-a-cell"


async def test_an_async_function_runs_in_its_callers_task(
    each_loop: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    tasks = []

    async def note_task() -> str:
        tasks.append(asyncio.current_task())
        return "fetched"

    pool = configure(upstream, API_KEY=note_task)
    await pool.acomplete("hello")
    await pool.arequest("POST", "chat/completions", json={"messages": [{"content": "hello"}]})
    assert tasks == [asyncio.current_task()] * 2


async def test_an_async_function_waits_for_no_thread(
    each_loop: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Django runs all sync code of a request on one thread, which can be busy."""
    begun, end = threading.Event(), threading.Event()

    def be_busy() -> None:
        begun.set()
        assert end.wait(5)

    busy = asyncio.create_task(sync_to_async(be_busy)())
    await until(begun.is_set)
    assert (await configure(upstream, API_KEY=fetch).acomplete("hello")).text
    assert not busy.done()
    end.set()
    await busy


@pytest.mark.parametrize("call", CALLS)
def test_an_async_function_is_called_for_each_call(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    numbers = itertools.count()

    async def rotate() -> str:
        return f"key-{next(numbers)}"

    pool = configure(upstream, API_KEY=rotate)
    for _ in range(3):
        ask(call, pool)
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer key-0", "Bearer key-1", "Bearer key-2"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("outcome", "error", "message"),
    [
        (LookupError, LookupError, "the vault is sealed"),
        (None, ImproperlyConfigured, r"\['API_KEY'\] returned None; it must return a string"),
        (b"key", ImproperlyConfigured, r"\['API_KEY'\] returned a bytes"),
        ("two\nlines", ImproperlyConfigured, r"\['API_KEY'\] holds a character"),
    ],
)
def test_an_async_function_that_gives_no_key_is_a_clear_error(
    outcome: Any,
    error: type[Exception],
    message: str,
    call: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    async def fail() -> Any:
        if outcome is LookupError:
            raise LookupError("the vault is sealed")
        return outcome

    pool = configure(upstream, API_KEY=fail)
    with pytest.raises(error, match=message) as caught:
        ask(call, pool)
    assert caught.value.__context__ is None
    assert upstream.requests == []
