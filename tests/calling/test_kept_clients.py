"""A client that is kept, by its user or by an SDK, works as long as the process: it finds the pool anew."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from llm_pool import exceptions, pools
from llm_pool.providers.openai import OpenAI
from testbed.behaviours import echo
from testbed.chat import chat_completion
from tests.fixtures.calls import CALLS, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

KINDS = ["client", "aclient"]
both = pytest.mark.parametrize("kind", KINDS)
ENDS: dict[str, Callable[[LLMPool], Any]] = {
    "close": lambda pool: pool.close(),
    "aclose": lambda pool: asyncio.run(pool.aclose()),
    "close_all": lambda _: pools.close_all(),
    "aclose_all": lambda _: asyncio.run(pools.aclose_all()),
}


def get(client: httpx.Client | httpx.AsyncClient, url: str, **options: Any) -> httpx.Response:
    """Send as SDKs do: build the request, then send it."""
    request = client.build_request("GET", url, **options)
    if isinstance(client, httpx.Client):
        return client.send(request)
    return asyncio.run(client.send(request))


@both
@pytest.mark.parametrize("end", ENDS)
def test_a_client_works_after_its_pool_was_closed(
    end: str, kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(echo))
    client = getattr(pool, kind)
    get(client, "a")
    for _ in range(2):
        ENDS[end](pools["default"])
        assert get(client, "b").json()["target"] == "/v1/b"
    assert pools["default"].stats().requests == 1
    with pytest.raises(exceptions.PoolClosed):
        pool.complete("hello")
    with pytest.raises(exceptions.PoolClosed):
        pool.request("GET", "c")
    with pytest.raises(exceptions.PoolClosed):
        asyncio.run(pool.arequest("GET", "c"))


@both
@pytest.mark.parametrize("user", ["relative", "sdk"])
def test_a_client_uses_the_new_settings(
    user: str, kind: str, secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 54: URL, key, HEADERS, timeouts and limits. An SDK adds the URL and the key itself."""
    old, new = serve(echo), serve(echo)
    client = getattr(configure(old, HEADERS={"X-Team": "old"}, QUERY={"q": "old"}), kind)
    get(client, "a")
    with override_settings():
        headers, query = {"X-Team": "new"}, {"q": "new"}
        configure(new, API_KEY="sk-new", HEADERS=headers, QUERY=query, TIMEOUTS={"read": 7.0})
        if user == "relative":
            get(client, "b")
            request = new.requests[0]
            assert (request.target, request.headers["x-team"]) == ("/v1/b?q=new", "new")
            assert request.headers["authorization"] == "Bearer sk-new"
        else:
            get(client, f"{old.url}/v1/b", headers={"Authorization": "Bearer sdk"})
            request = old.requests[1]
            assert request.target == "/v1/b"
            assert request.headers["authorization"] == "Bearer sdk"
            assert "x-team" not in request.headers  # it is another server now
        assert client.timeout.read == 7.0
        assert pools["default"].stats().requests == 1
    assert secret not in str([request.headers for request in new.requests])


@both
def test_a_client_keeps_what_its_user_has_changed(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(echo)
    client = getattr(configure(server), kind)
    seen: list[str] = []

    async def asee(request: httpx.Request) -> None:
        seen.append(request.url.path)

    client.event_hooks = {
        "request": [asee if kind == "aclient" else lambda request: seen.append(request.url.path)]
    }
    client.timeout = 3.0
    client.headers["X-Own"] = "mine"
    client.auth = ("user", "word")
    configure(server, TIMEOUTS={"read": 7.0}, HEADERS={"X-Team": "blue"})
    get(client, "b")
    assert (seen, client.timeout.read) == (["/v1/b"], 3.0)
    headers = server.requests[0].headers
    assert (headers["x-own"], headers["x-team"]) == ("mine", "blue")
    assert headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_pool_makes_no_call_through_clients_that_use_the_next(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Hooks make the calls go through the clients. The old key must not reach the new server."""
    old, new = serve(echo), serve(echo)
    pool = configure(old)
    pool.client.event_hooks = {"request": [lambda _: None]}

    async def hook(request: httpx.Request) -> None: ...

    pool.aclient.event_hooks = {"request": [hook]}
    configure(new, API_KEY="sk-new")
    get(pool.client, "a")
    get(pool.aclient, "a")
    with pytest.raises(exceptions.PoolClosed):
        ask(call, pool)
    assert (len(old.requests), len(new.requests)) == (0, 2)


class Interrupted(OpenAI):
    """Calls ``change`` once, while a call's request is prepared."""

    change: ClassVar[Callable[[], object] | None] = None

    def headers(self, key: str | None) -> dict[str, str]:
        change, Interrupted.change = Interrupted.change, None
        if change is not None:
            change()
        return super().headers(key)


def test_settings_that_change_while_a_request_is_prepared_do_not_move_its_key(
    secret: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 54: a hook makes the call go through the client, which uses the new settings by then."""
    old, new = serve(chat_completion("old")), serve(chat_completion("new"))
    pool = configure(old, PROVIDER=f"{__name__}.Interrupted")
    pool.client.event_hooks = {"request": [lambda _: None]}
    Interrupted.change = functools.partial(configure, new, API_KEY="sk-new")
    assert pool.complete("hello").text == "old"
    assert new.requests == []
    assert "authorization" not in old.requests[0].headers  # the client belongs to another origin now


@both
def test_a_request_that_was_built_before_the_pool_was_closed_can_be_sent(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(echo))
    request = getattr(pool, kind).build_request("GET", "a")
    pool.close()
    if kind == "client":
        assert pool.client.send(request).status_code == 200
    else:
        assert asyncio.run(pool.aclient.send(request)).status_code == 200


@both
def test_a_client_without_a_pool_in_the_settings_says_so(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    client = getattr(configure(serve(echo)), kind)
    with (
        override_settings(LLM_POOL={"other": {}}),
        pytest.raises(ImproperlyConfigured, match="no pool named 'default'"),
    ):
        get(client, "a")


@both
def test_the_client_of_a_pool_without_settings_ends_with_it(
    kind: str, pool_to: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = pool_to(serve(echo))
    pool.close()
    with pytest.raises(exceptions.PoolClosed):
        get(getattr(pool, kind), "a")


@both
@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("closed", [False, True])
def test_a_client_works_in_the_child_of_a_fork(
    closed: bool, kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 52: also if its pool was closed before the fork."""
    pool = configure(serve(echo))
    client = getattr(pool, kind)
    get(client, "a")
    if closed:
        pool.close()
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        os._exit(0 if get(client, "b").status_code == 200 else 1)
    assert os.waitpid(child, 0) == (child, 0)
    assert get(client, "c").status_code == 200


def test_threads_that_share_a_client_while_the_settings_change(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 54: each request succeeds or raises PoolClosed, and carries no other server's key."""
    servers = [serve(echo), serve(echo)]
    client = configure(servers[0], API_KEY="sk-0").client

    async def caller(over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(exceptions.PoolClosed):
                assert (await asyncio.to_thread(client.get, "a")).status_code == 200

    async def change() -> None:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(caller(over))
            for number in range(1, 10):
                server = servers[number % 2]
                before = len(server.requests)
                await asyncio.to_thread(configure, server, API_KEY=f"sk-{number % 2}")
                await server.await_until(lambda s, before=before: len(s.requests) > before + 3)
            over.set()

    asyncio.run(change())
    for number, server in enumerate(servers):
        keys = {request.headers.get("authorization") for request in server.requests}
        assert keys <= {f"Bearer sk-{number}", None}
