"""The API key: sent to its own origin only, and shown in no error, log or repr."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from llm_pool import exceptions, pools
from llm_pool.engine.config import Timeouts
from testbed.behaviours import echo, json_reply, reply, steps
from testbed.ports import refused_port
from tests.fixtures.calls import CALLS, ask, hook_into
from tests.fixtures.internals import builder_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer


BASIC = "Basic dXNlcjp3b3Jk"


def own_auth(request: httpx.Request) -> httpx.Request:
    """An ``auth`` of httpx that is a function."""
    request.headers["Authorization"] = BASIC
    return request


def send(kind: str, pool: LLMPool, method: str, path: str, **options: Any) -> httpx.Response:
    if kind == "request":
        return pool.request(method, path, **options)
    return asyncio.run(pool.arequest(method, path, **options))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", ["API_KEY", "HEADERS", "through httpx"])
def test_a_key_that_the_provider_repeats_is_shown_as_stars(
    call: str,
    place: str,
    secret: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    says = {"error": {"message": f"Incorrect API key: {secret}.", "code": secret}}
    own = {"HEADERS": {"Authorization": f"Bearer {secret}"}, "API_KEY": "another"}
    server = serve(json_reply(says, status=401, headers={"X-Request-Id": secret}))
    pool = configure(server, **({} if place == "API_KEY" else own))
    if place == "through httpx":
        pool.client.event_hooks = {"request": [lambda _: None]}
    with pytest.raises(exceptions.AuthenticationFailed) as caught:
        ask(call, pool)
    error = caught.value
    assert "***" in str(error)
    seen = [str(error), repr(error), str(error.body), error.response.text, str(error.code), str(vars(error))]
    assert [text for text in seen if secret in text] == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        json_reply({"error": {"message": "no"}}, status=401),
        reply(200, b"<html>"),
        steps(reply(200, b"", {"Content-Length": "9"})),
    ],
)
def test_no_log_and_no_error_report_shows_the_key(
    answer: Script,
    hooked: bool,
    call: str,
    secret: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Django's error page and tools such as Sentry show the local variables of every frame."""
    caplog.set_level(logging.DEBUG)
    pool = configure(serve(answer), TIMEOUTS={"read": 0.3})
    if hooked:
        pool.client.event_hooks = {"request": [lambda request: None]}

        async def hook(request: httpx.Request) -> None: ...

        pool.aclient.event_hooks = {"request": [hook]}
    assert_hidden(secret, pool, capture(call, pool), caplog)


def test_no_error_of_an_unreachable_provider_shows_the_key(
    secret: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with refused_port() as port:
        pool = configure(upstream, BASE_URL=f"http://127.0.0.1:{port}/v1")
        for call in CALLS:
            assert_hidden(secret, pool, capture(call, pool), caplog)


def test_no_repr_shows_the_key(
    secret: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, HEADERS={"X-Token": secret})
    ask("complete", pool)
    request = pool.aclient.build_request("GET", "models")
    values = [pool, pools, pool.settings, pool.settings.key(), pool.engine, pool.engine.config, pool.stats()]
    values += [
        pool.client,
        pool.aclient,
        request,
        pool.client.auth,
        pool.stream("hi"),
        pool.client._transport,
    ]
    values += [builder_of(pool).get("/", pool.settings.key(), Timeouts())]
    values += [vars(pool), vars(pool.settings.provider)]
    assert [value for value in values if secret in repr(value)] == []
    assert upstream.requests[0].headers["authorization"] == f"Bearer {secret}"  # this key is in use


def test_the_key_goes_to_its_own_origin_only(
    secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """An absolute URL or a redirect to another origin sends neither the key nor HEADERS there."""
    elsewhere = serve(echo)

    async def redirect(conn: Any) -> None:
        request = await conn.read_request()
        target = request.target.removeprefix("/v1")
        to = f"{elsewhere.url}{target}" if target == "/away" else "/v1/away"
        await conn.respond(307, {"Location": to})

    server = serve(redirect)
    pool = configure(server, HEADERS={"X-Token": "own"})
    pool.request("GET", f"{elsewhere.url}/absolute")
    pool.request("GET", "here", follow_redirects=True)
    pool.request("GET", "here", follow_redirects=True, headers={"Authorization": "Bearer mine"})
    assert [request.target for request in server.requests[:2]] == ["/v1/here", "/v1/away"]
    assert {request.headers.get("x-token") for request in server.requests} == {"own"}
    assert [request.headers["authorization"] for request in server.requests[::2]] == [
        f"Bearer {secret}",
        "Bearer mine",
    ]
    assert [request.target for request in elsewhere.requests] == ["/absolute", "/away", "/away"]
    for request in elsewhere.requests:
        assert "authorization" not in request.headers
        assert "x-token" not in request.headers


async def test_the_async_client_sends_the_key_to_its_own_origin_only(
    secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    elsewhere = serve(echo)
    server = serve(reply(307, headers={"Location": f"{elsewhere.url}/away"}))
    pool = configure(server, HEADERS={"X-Token": "own"})
    await pool.arequest("GET", f"{elsewhere.url}/absolute")
    await pool.arequest("POST", "here", json={}, follow_redirects=True)
    assert server.requests[0].headers["authorization"] == f"Bearer {secret}"
    assert [request.target for request in elsewhere.requests] == ["/absolute", "/away"]
    assert not any({"authorization", "x-token"} & set(request.headers) for request in elsewhere.requests)


@pytest.mark.parametrize("kind", ["request", "arequest"])
@pytest.mark.parametrize("auth", [None, ("user", "word"), httpx.BasicAuth("user", "word"), own_auth])
def test_a_requests_own_auth_replaces_the_key_and_no_other_header(
    auth: Any, kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Neither the key of API_KEY nor one in HEADERS is sent."""
    server = serve(echo)
    pool = configure(server, HEADERS={"X-Team": "blue", "User-Agent": "shop/1", "Api-Key": "in-headers"})
    send(kind, pool, "GET", "models", auth=auth)
    headers = server.requests[0].headers
    assert (headers["x-team"], headers["user-agent"]) == ("blue", "shop/1")
    assert "api-key" not in headers
    assert headers.get("authorization") == (None if auth is None else BASIC)


@pytest.mark.parametrize("kind", ["request", "arequest"])
def test_credentials_of_a_url_go_to_its_own_origin(
    kind: str, secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58: those of the provider's URL do not replace the key; the key goes nowhere else."""
    server, elsewhere = serve(echo), serve(echo)
    pool = configure(server, HEADERS={"X-Team": "blue"})
    send(kind, pool, "GET", f"http://user:word@{elsewhere.authority}/a")
    send(kind, pool, "GET", f"http://user:word@{elsewhere.authority}/a", auth=None)
    send(kind, pool, "GET", f"http://user:word@{server.authority}/a")
    assert [request.headers.get("authorization") for request in elsewhere.requests] == [BASIC, BASIC]
    assert not any("x-team" in request.headers for request in elsewhere.requests)
    assert server.requests[0].headers["authorization"] == f"Bearer {secret}"


def test_a_requests_own_authorization_wins(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(echo))
    answer = pool.request("GET", "models", headers={"Authorization": "Bearer mine"})
    assert answer.json()["headers"]["authorization"] == "Bearer mine"


@pytest.mark.parametrize("kind", ["request", "arequest"])
def test_a_request_with_its_own_key_needs_none_of_the_pool(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer], fake_dns: Any
) -> None:
    """For example, a request of an SDK on the pool's client."""
    server = serve(echo)
    fake_dns.names["llm.test"] = server.host
    pool = configure(server, BASE_URL=f"http://llm.test:{server.port}/v1", API_KEY=None)
    options: dict[str, Any] = {"headers": {"Authorization": "Bearer mine"}}
    if kind == "request":
        seen = pool.request("GET", "models", **options)
    else:
        seen = asyncio.run(pool.arequest("GET", "models", **options))
    assert seen.json()["headers"]["authorization"] == "Bearer mine"
    with pytest.raises(ImproperlyConfigured, match="no API_KEY"):
        pool.request("GET", "models")


def test_a_rotated_key_is_used_by_the_next_call(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    keys = iter(["first", "second", "third"])
    pool = configure(upstream, API_KEY=lambda: next(keys))
    ask("complete", pool)
    ask("stream", pool)
    pool.request("POST", "chat/completions", json={"messages": [{"content": "hi"}]})
    assert [request.headers["authorization"] for request in upstream.requests] == [
        "Bearer first",
        "Bearer second",
        "Bearer third",
    ]


@pytest.mark.parametrize("hooked", [False, True], ids=["direct", "hooked"])
@pytest.mark.parametrize("call", CALLS)
def test_a_rotated_key_is_hidden(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """The function is called once for each call: errors hide the key that was sent."""
    keys = (f"sk-rotated-{number}" for number in itertools.count())

    async def refuse(conn: Any) -> None:
        request = await conn.read_request()
        says = {"error": {"message": f"Not {request.headers['authorization']}"}}
        await conn.respond(401, {"Content-Type": "application/json"}, json.dumps(says).encode())

    pool = configure(serve(refuse), API_KEY=lambda: next(keys))
    if hooked:
        hook_into(pool)
    for _ in range(2):
        with pytest.raises(exceptions.AuthenticationFailed) as caught:
            ask(call, pool)
        assert "Not Bearer ***" in str(caught.value)
    assert next(keys) == "sk-rotated-2"


@pytest.mark.parametrize("call", CALLS)
def test_a_function_without_a_next_key_is_a_clear_error(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """A future cannot hold a StopIteration: without the error, the call would never end."""
    pool = configure(upstream, API_KEY=lambda: next(iter(())))
    with pytest.raises(ImproperlyConfigured, match=r"\['API_KEY'\] raised StopIteration"):
        ask(call, pool)


def capture(call: str, pool: LLMPool) -> Any:
    try:
        ask(call, pool)
    except exceptions.LLMPoolError:
        return sys.exc_info()
    raise AssertionError("nothing was raised")


def assert_hidden(secret: str, pool: LLMPool, caught: Any, caplog: pytest.LogCaptureFixture) -> None:
    request = RequestFactory().get("/")
    settings_before = settings.DEBUG
    settings.DEBUG = True
    try:
        page = ExceptionReporter(request, *caught).get_traceback_html()
    finally:
        settings.DEBUG = settings_before
    assert "pool" in page
    assert secret not in page
    frames = traceback.TracebackException(*caught, capture_locals=True)
    own = [frame for frame in frames.stack if "llm_pool" in frame.filename or "httpx" in frame.filename]
    assert own
    assert [frame for frame in own if secret in str(frame.locals)] == []
    assert secret not in caplog.text


@pytest.mark.parametrize("way", ["acomplete", "arequest"])
async def test_fetching_a_key_blocks_no_event_loop(
    way: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    may_come = threading.Event()

    def fetch() -> str:
        assert may_come.wait(5), "the event loop stood still"
        return "fetched"

    pool = configure(upstream, API_KEY=fetch)
    asyncio.get_running_loop().call_soon(may_come.set)
    if way == "acomplete":
        await pool.acomplete("hello")
    else:
        await pool.arequest("POST", "chat/completions", json={"messages": [{"content": "hello"}]})
    assert upstream.requests[0].headers["authorization"] == "Bearer fetched"
