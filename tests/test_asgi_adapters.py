"""Adapters of serverless platforms, test clients: a lifespan or an event loop for each invocation."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator

from llm_pool import pools
from llm_pool.asgi import LLMPoolASGI
from llm_pool.engine.loops import portal
from tests.fixtures.internals import forget_server
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

INVOCATIONS = 5


@pytest.fixture(autouse=True)
def no_earlier_lifespan(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_server(monkeypatch)


@pytest.fixture
def lasting_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs only during the invocations, as Mangum's."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """An application whose view is async or sync, by the path."""
    pool = pools["default"]
    sync = scope["path"] == "/sync"
    completion = await (sync_to_async(pool.complete)("hello") if sync else pool.acomplete("hello"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": completion.text.encode()})


application = LLMPoolASGI(answer)


async def invoke(path: str, *, lifespan: bool) -> None:
    """Handle one request, within a lifespan of its own if ``lifespan``."""
    life = ApplicationCommunicator(application, {"type": "lifespan", "state": {}})  # type: ignore[arg-type]
    if lifespan:
        await life.send_input({"type": "lifespan.startup"})
        assert (await life.receive_output(5))["type"] == "lifespan.startup.complete"
    scope = {"type": "http", "path": path}
    request = ApplicationCommunicator(application, scope)  # type: ignore[arg-type]
    assert (await request.receive_output(5))["status"] == 200
    assert (await request.receive_output(5))["body"] == b"You said hello."
    if lifespan:
        await life.send_input({"type": "lifespan.shutdown"})
        assert (await life.receive_output(5))["type"] == "lifespan.shutdown.complete"
        await life.wait(5)


@pytest.mark.parametrize(
    ("path", "lifespan", "connections"),
    [("/async", True, 2), ("/async", False, 2), ("/sync", True, 2), ("/sync", False, 1)],
)
def test_a_loop_for_each_invocation_shares_connections_from_the_second_on(
    path: str,
    lifespan: bool,
    connections: int,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    """As those test clients and adapters that call ``asyncio.run``."""
    configure(upstream)
    for _ in range(INVOCATIONS):
        asyncio.run(invoke(path, lifespan=lifespan))
    assert len(upstream.requests) == INVOCATIONS
    assert upstream.connections_accepted == connections


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_a_lifespan_for_each_invocation_shares_connections_from_the_second_on(
    path: str,
    lasting_loop: asyncio.AbstractEventLoop,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    """On a loop that lasts. The portal hosts the connections: this loop runs only during invocations."""
    configure(upstream)
    for _ in range(INVOCATIONS):
        lasting_loop.run_until_complete(invoke(path, lifespan=True))
    assert [request.connection for request in upstream.requests] == [0, 1, 1, 1, 1]
    assert not portal.is_on_server_loop()


MANGUM = """
import asyncio, json, sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llm_pool"], ROOT_URLCONF="tests.urls", ALLOWED_HOSTS=["*"], SECRET_KEY="tests",
    LLM_POOL={"default": {"BASE_URL": sys.argv[1], "MODEL": "m", "API_KEY": "k", "PROXY": ""}},
)
from llm_pool.asgi import get_asgi_application
from mangum import Mangum
asyncio.set_event_loop(loop := asyncio.new_event_loop())
handler = Mangum(get_asgi_application())
for view in sys.argv[2:]:
    http = {"method": "GET", "path": f"/{view}", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": f"/{view}", "rawQueryString": "", "headers": {},
        "requestContext": {"http": http}, "isBase64Encoded": False,
    }
    print(handler(event, None)["body"])
loop.close()
"""


def test_mangum_shares_connections_and_the_process_ends_cleanly(upstream: ScriptedServer) -> None:
    """The connections outlive the invocations, and are closed at the exit of the process."""
    views = ["acomplete"] * 4 + ["complete"] * 4
    answers = [json.loads(line) for line in run_script(MANGUM, upstream.url, *views).splitlines()]
    assert [answer["text"] for answer in answers] == ["You said hello."] * 8
    assert upstream.connections_accepted == 2
    upstream.wait_until(lambda s: s.connections_open == 0)
    assert {left.reason for left in upstream.disconnects} == {"eof"}


@pytest.mark.parametrize("state", [{}, {"state": {}}])
async def test_a_request_without_a_lifespan_is_warned_of_once(
    state: dict[str, Any],
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the server could send one, which the scope's "state" shows."""
    caplog.set_level(logging.WARNING, "llm_pool.asgi")
    configure(upstream)
    inner = LLMPoolASGI(application)  # wrapped twice, as with a router between
    for _ in range(2):
        scope = {"type": "http", "path": "/async", **state}
        request = ApplicationCommunicator(inner, scope)  # type: ignore[arg-type]
        assert (await request.receive_output(5))["status"] == 200
        await request.wait(5)
    assert caplog.text.count("No lifespan event has reached llm_pool") == len(state)
    assert len({request.connection for request in upstream.requests}) == 1
    portal.release_server_loop()


async def test_a_request_within_a_lifespan_is_not_warned_of(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    configure(upstream)
    await invoke("/async", lifespan=True)
    assert caplog.text == ""
