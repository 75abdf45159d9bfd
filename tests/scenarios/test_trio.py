"""Under trio an async call fails with a sentence that says what to do; a sync call in a thread works."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio._core import _thread_cache

from llm_pool import exceptions
from llm_pool.asgi import get_asgi_application
from testbed.behaviours import echo
from testbed.chat import chat_completion

SENTENCE = r"async calls need an event loop of asyncio.*-k asyncio"


async def read_stream(pool: Any) -> None:
    async with pool.astream("hello") as stream:
        async for _ in stream:
            pass


CALLS = {
    "acomplete": lambda pool: pool.acomplete("hello"),
    "astream": read_stream,
    "arequest": lambda pool: pool.arequest("GET", "a"),
    "aclient": lambda pool: pool.aclient.get("a"),
    "adrain": lambda pool: pool.adrain(),
    "aclose": lambda pool: pool.aclose(),
    "acheck": lambda pool: pool.acheck(),
}


@pytest.mark.parametrize("key", ["fixed", lambda: "from a function"])
@pytest.mark.parametrize("call", CALLS)
def test_an_async_call_under_trio_says_what_to_do(call, key, configure, serve):
    server = serve(echo)
    pool = configure(server, API_KEY=key)
    with pytest.raises(exceptions.UnsupportedEventLoop, match=SENTENCE) as caught:
        trio.run(CALLS[call], pool)
    assert isinstance(caught.value, RuntimeError)
    assert server.requests == []


def test_a_sync_call_in_a_thread_of_trio_works(configure, serve, monkeypatch):
    monkeypatch.setattr(_thread_cache, "IDLE_TIMEOUT", 0.01)  # otherwise the thread stays for 10 s
    pool = configure(serve(chat_completion("Hello!")))
    assert trio.run(trio.to_thread.run_sync, pool.complete, "hello").text == "Hello!"


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "http", "path": "/"}])
def test_the_application_under_trio_says_what_to_do(scope, configure, serve, caplog):
    """As with hypercorn's trio worker."""
    configure(serve(echo))
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    if scope["type"] == "lifespan":
        trio.run(get_asgi_application(), scope, receive, send)
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        assert "-k asyncio" in sent[0]["message"]
        assert "llm_pool could not start" in caplog.text
    else:
        with pytest.raises(exceptions.UnsupportedEventLoop, match=SENTENCE):
            trio.run(get_asgi_application(), scope, receive, send)
