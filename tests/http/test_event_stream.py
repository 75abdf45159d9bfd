"""``event_stream``, and views that call a pool, under Django's test client."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client, RequestFactory

from llm_pool.http import event_stream, reading
from llm_pool.http.reading import COMMENT
from testbed.behaviours import events as sse
from testbed.behaviours import json_reply
from testbed.chat import chat_event, chat_stream
from tests import views
from tests.fixtures.events import assert_whole, events_of
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer, ServerConnection


@pytest.mark.parametrize("path", ["/complete", "/acomplete"])
def test_views_under_wsgi_reuse_connections(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 53: each request to an async view runs on a new event loop."""
    configure(upstream)
    for _ in range(5):
        assert Client().get(path).json()["text"] == "You said hello."
    assert upstream.connections_accepted == 1


def test_an_async_view_called_by_async_to_sync_reuses_connections(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 53."""
    configure(upstream)
    for _ in range(5):
        response = async_to_sync(views.acomplete)(RequestFactory().get("/"))
        assert json.loads(response.content)["text"] == "You said hello."
    assert upstream.connections_accepted == 1


@pytest.mark.parametrize("path", ["/complete", "/acomplete", "/complete-on-the-loop"])
async def test_views_under_asgi_reuse_connections(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 53: even if ``complete`` blocks the event loop."""
    configure(upstream)
    for _ in range(3):
        assert (await AsyncClient().get(path)).json()["text"] == "You said hello."
    assert upstream.connections_accepted == 1


@pytest.mark.parametrize("path", ["/stream", "/astream"])
def test_both_kinds_of_stream_are_read_under_wsgi(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    response = Client().get(path)
    assert_whole(list(response))
    assert response["Content-Type"] == "text/event-stream"
    assert "no-transform" in response["Cache-Control"]


@pytest.mark.parametrize("path", ["/stream", "/astream"])
async def test_both_kinds_of_stream_are_read_under_asgi(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    response = await AsyncClient().get(path)
    assert_whole([piece async for piece in response])


@pytest.mark.parametrize("kind", ["stream", "astream"])
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_an_event_of_its_own(
    kind: str,
    debug: bool,
    settings: Any,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the error. The event has its text with DEBUG, and otherwise a general sentence."""
    settings.DEBUG = debug
    says = {"error": {"message": f"Not your key: {secret}."}}
    server = serve_first(json_reply(says, status=401))
    pool = configure(server)
    stream = getattr(pool, kind)("hello")
    (event,) = events_of(list(event_stream(stream)))
    assert (event.name, event.id) == ("failed", "end")
    assert event.data["error"] == "AuthenticationFailed"
    assert ("Not your key: ***." in event.data["message"]) is debug
    assert event.data["message"].endswith("." if debug else "Please try again later.")
    assert "Not your key: ***." in caplog.text


@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_an_error_of_the_project_is_an_error_event_too(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the key is missing. The response has begun: without the event, it would only break off."""

    def no_key() -> str:
        raise LookupError("the vault is closed")

    pool = configure(upstream, API_KEY=no_key)
    (event,) = events_of(list(event_stream(getattr(pool, kind)("hello"))))
    assert (event.name, event.id) == ("failed", "end")
    assert event.data["error"] == "LookupError"
    assert "vault" not in event.data["message"]
    assert "the vault is closed" in caplog.text


@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_a_view_may_read_the_first_chunk_before_the_response(
    kind: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    """The chunks that arrive together with the first one are not lost."""
    one_read = b"".join(chat_event({"content": word}) for word in ("one", " two", " three"))
    pool = configure(serve_first(sse(one_read, b"data: [DONE]\n\n")))
    stream = getattr(pool, kind)("hello")
    first = next(stream) if kind == "stream" else async_to_sync(stream.__anext__)()
    assert first.text == "one"
    sent = events_of(list(event_stream(stream)))
    assert "".join(event.data["text"] for event in sent[:-1]) == " two three"
    assert sent[-1].data["text"] == "one two three"


@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_a_response_that_is_never_read_makes_no_call(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    response = event_stream(getattr(pool, kind)("hello"), headers={"X-Own": "yes"})
    assert response["X-Own"] == "yes"
    response.close()
    assert list(response) == []
    assert upstream.connections_accepted == 0


@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_a_response_that_is_closed_in_mid_stream_frees_its_connection(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 24: as a WSGI server closes it when its client disconnects."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pool = configure(upstream)
    response = event_stream(getattr(pool, kind)("hello"))
    assert b"one" in next(iter(response))
    response.close()
    upstream.wait_until(lambda s: len(s.disconnects) == 1)


@pytest.mark.parametrize("kind", ["stream", "astream"])
async def test_a_response_whose_iterator_is_closed_frees_its_connection(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 24: as Django closes it when its task is cancelled, before it closes the response."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pool = configure(upstream)
    response = event_stream(getattr(pool, kind)("hello"))
    async with aclosing(aiter(response)) as pieces:
        assert b"one" in await anext(pieces)
    await upstream.await_until(lambda s: len(s.disconnects) == 1)


@pytest.mark.parametrize("gate", ["head", "token"])
@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_a_silent_model_is_covered_by_heartbeats_under_wsgi(
    kind: str,
    gate: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the head of its response, and between two tokens. Nothing is lost, and nothing is sent twice."""
    monkeypatch.setattr(reading, "HEARTBEAT_SECONDS", 0.01)
    upstream.gate(gate).shut()
    pieces = iter(event_stream(getattr(configure(upstream), kind)("hello")))
    assert [next(pieces) for _ in range(3)] == [COMMENT] * 3
    upstream.gate(gate).open()
    assert_whole([piece for piece in pieces if piece != COMMENT])
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("gate", ["head", "token"])
@pytest.mark.parametrize("kind", ["stream", "astream"])
async def test_a_silent_model_is_covered_by_heartbeats_under_asgi(
    kind: str,
    gate: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "HEARTBEAT_SECONDS", 0.01)
    upstream.gate(gate).shut()
    pieces = aiter(event_stream(getattr(configure(upstream), kind)("hello")))
    assert [await anext(pieces) for _ in range(3)] == [COMMENT] * 3
    upstream.gate(gate).open()
    assert_whole([piece async for piece in pieces if piece != COMMENT])
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("kind", ["stream", "astream"])
def test_a_step_without_text_becomes_a_comment(
    kind: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    """A model that reasons for minutes is not silent, so no heartbeat is due. Proxies cut browsers."""
    server = serve_first(chat_stream([], then=thinking))
    server.gate("token").shut()
    pieces = iter(event_stream(getattr(configure(server), kind)("hello")))
    assert next(pieces) == COMMENT
    server.gate("token").open()
    assert_ends_with(list(pieces), "42")


async def thinking(conn: ServerConnection) -> None:
    await conn.send_chunk(chat_event({"reasoning_content": "Six times seven ..."}))
    await conn.wait_for("token")
    await conn.send_last_chunk(chat_event({"content": "42"}, finish_reason="stop") + b"data: [DONE]\n\n")


def assert_ends_with(pieces: list[bytes], text: str) -> None:
    done = events_of(pieces)[-1]
    assert (done.name, done.data["text"]) == ("done", text)


@pytest.mark.parametrize("wrong", ["a completion", "text", "a list", "a coroutine", None])
def test_what_is_no_stream_is_refused_at_once(
    wrong: str | None, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    values = {"a completion": lambda: pool.complete("hello"), "a list": lambda: list(pool.stream("hello"))}
    coroutine = pool.acomplete("hello")
    value = coroutine if wrong == "a coroutine" else values.get(wrong or "", lambda: wrong)()
    with pytest.raises(TypeError, match=r"takes a stream, not .*pools\[...\]\.stream\(...\)"):
        event_stream(value)  # type: ignore[arg-type]
    coroutine.close()


@pytest.mark.parametrize("end", ["read", "closed"])
def test_a_stream_that_has_ended_is_refused_at_once(
    end: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    stream = configure(upstream).stream("hello")
    if end == "read":
        list(stream)
    stream.close()
    with pytest.raises(ValueError, match="this one has ended"):
        event_stream(stream)


def test_the_key_of_a_stream_is_read_in_the_context_of_its_view(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Its steps run on another thread."""
    user: ContextVar[str] = ContextVar("user")
    seen: list[str] = []

    def key() -> str:
        seen.append(user.get())
        return "the-key"

    pool = configure(upstream, API_KEY=key)
    user.set("alice")
    assert_whole(list(event_stream(pool.stream("hello"))))
    assert seen == ["alice"]


DATABASE_KEY = """
import sys, threading, django
from django.conf import settings
from django.db import connection, connections

opened = []

def key():
    connection.ensure_connection()
    opened.append(connections["default"])
    return "the-key"

url, file = sys.argv[1:]
pool = {"BASE_URL": url, "API_KEY": key, "MODEL": "m", "PROXY": ""}
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": file}
settings.configure(INSTALLED_APPS=["llm_pool"], DATABASES={"default": database}, LLM_POOL={"default": pool})
django.setup()
from llm_pool import pools
from llm_pool.http import event_stream

assert list(event_stream(pools["default"].stream("hello")))
for thread in threading.enumerate():
    if thread.name == "llm_pool-events":
        thread.join()
print([each.connection for each in opened])
"""


def test_a_database_connection_that_the_key_has_opened_is_closed(
    upstream: ScriptedServer, tmp_path: Path
) -> None:
    """The steps of a stream under WSGI run on a thread that Django does not see."""
    assert run_script(DATABASE_KEY, f"{upstream.url}/v1", str(tmp_path / "db")) == "[None]\n"


def test_a_loop_that_ends_in_mid_stream_ends_the_upstream_call(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 24: the connection to the upstream closes when the stream's loop ends."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pool = configure(upstream)

    async def begin() -> None:
        stream = pool.astream("hello")
        assert (await anext(stream)).text == "one"
        asyncio.get_running_loop().create_task(anext(stream), name="left behind")  # type: ignore[arg-type]
        await upstream.gate("token").await_reached(2)

    asyncio.run(begin())
    upstream.wait_until(lambda s: len(s.disconnects) == 1)
