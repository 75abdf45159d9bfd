"""Callers share a pool's httpx clients: nothing that belongs to one of them goes out with another's call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from testbed.behaviours import echo, json_reply, reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

SESSION = {"Set-Cookie": "session=alice; Path=/"}
both = pytest.mark.parametrize("kind", ["request", "arequest"])


def send(kind: str, pool: LLMPool, path: str = "models", **options: Any) -> httpx.Response:
    """Send a GET request by ``request``, or by ``arequest`` on a new event loop."""
    if kind == "request":
        return pool.request("GET", path, **options)
    return asyncio.run(pool.arequest("GET", path, **options))


def client_of(kind: str, pool: LLMPool) -> httpx.Client | httpx.AsyncClient:
    return pool.client if kind == "request" else pool.aclient


def cookies_of(server: ScriptedServer) -> list[str | None]:
    """The ``Cookie`` header of each request."""
    return [request.headers.get("cookie") for request in server.requests]


@pytest.fixture
def setting(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    """A server whose every response sets a cookie."""
    return serve(json_reply({}, headers=SESSION))


@both
def test_a_responses_cookie_stays_with_the_response(
    kind: str, configure: Callable[..., LLMPool], setting: ScriptedServer
) -> None:
    """Scenario 58: it goes out with no later call, by the same or another client."""
    pool = configure(setting)
    assert send(kind, pool).cookies["session"] == "alice"
    send("request", pool)
    send("arequest", pool)
    pool.client.send(pool.client.build_request("GET", "models"))  # as SDKs do
    assert cookies_of(setting) == [None] * 4


@both
def test_a_requests_own_cookie_goes_out_with_that_request_only(
    kind: str, configure: Callable[..., LLMPool], setting: ScriptedServer
) -> None:
    """Scenario 58."""
    pool = configure(setting)
    send(kind, pool, headers={"Cookie": "mine=1"})
    send(kind, pool)
    with pytest.warns(DeprecationWarning, match="per-request cookies"):  # of httpx
        send(kind, pool, cookies={"mine": "2"})
    send(kind, pool)
    assert cookies_of(setting) == ["mine=1", None, "mine=2", None]


@both
def test_a_redirect_carries_the_cookie_of_its_request_alone(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58: and none that the first response has set."""
    redirect = reply(307, headers={**SESSION, "Location": "/v1/there"})

    async def script(conn: Any) -> None:
        await (echo if conn.server.requests else redirect)(conn)

    server = serve(script)
    response = send(kind, configure(server), headers={"Cookie": "mine=1"}, follow_redirects=True)
    assert response.json()["target"] == "/v1/there"
    assert cookies_of(server) == ["mine=1", "mine=1"]


@both
@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.cookies.set("a", "b"),
        lambda client: client.cookies.update({"a": "b"}),
        lambda client: client.cookies.__setitem__("a", "b"),
        lambda client: client.cookies.jar.set_cookie(next(iter(httpx.Cookies({"a": "b"}).jar))),
        lambda client: setattr(client, "cookies", {"a": "b"}),
        lambda client: setattr(client, "cookies", httpx.Cookies({"a": "b"})),
    ],
)
def test_a_cookie_set_on_the_client_is_refused(
    change: Callable[[Any], None], kind: str, configure: Callable[..., LLMPool], setting: ScriptedServer
) -> None:
    """Scenario 58."""
    pool = configure(setting)
    with pytest.raises(RuntimeError, match="give a cookie with each request"):
        change(client_of(kind, pool))
    send(kind, pool)
    assert cookies_of(setting) == [None]


@both
def test_the_clients_cookies_can_be_read_and_cleared(
    kind: str, configure: Callable[..., LLMPool], setting: ScriptedServer
) -> None:
    """As SDKs do."""
    pool = configure(setting)
    send(kind, pool)
    client = client_of(kind, pool)
    client.cookies.clear()
    client.cookies = {}  # type: ignore[assignment]
    assert (dict(client.cookies), client.cookies.get("session")) == ({}, None)
    assert not client.cookies


@both
def test_a_server_that_names_each_cookie_anew_gets_no_longer_requests(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58."""

    async def name_anew(conn: Any) -> None:
        number = len(conn.server.requests)
        await json_reply({}, headers={"Set-Cookie": f"visit-{number}={'v' * 30}; Path=/"})(conn)

    server = serve(name_anew)
    pool = configure(server)
    for _ in range(20):
        send(kind, pool)
    assert {len(request.headers) for request in server.requests} == {len(server.requests[0].headers)}
