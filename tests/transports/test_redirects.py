"""Redirects: followed within the origin, with all headers; another origin gets nothing secret."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool import exceptions
from testbed.behaviours import echo, per_connection, reply
from tests.fixtures.calls import CALLS, STREAMS, ask, hook_into
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

LOCATIONS = ["/v1/moved?a=1", "moved?a=1", "//{authority}/v1/moved?a=1", "{url}/v1/moved?a=1#part"]
CLIENTS = ["request", "arequest"]


def redirecting(location: str, status: int = 307, then: Script = model) -> Script:
    """Redirect every other request, beginning with the first; ``then`` plays the others.

    ``{url}``, ``{authority}`` and ``{port}`` in ``location`` are the server's own.
    """

    async def script(conn: Any) -> None:
        server = conn.server
        if len(server.requests) % 2:
            await then(conn)
            return
        await conn.read_request()
        place = location.format(url=server.url, authority=server.authority, port=server.port)
        await conn.respond(status, {"Location": place}, b"<html>moved</html>")

    return script


def send(kind: str, pool: LLMPool, method: str = "POST", path: str = "here", **options: Any) -> Any:
    if kind == "request":
        return pool.request(method, path, **options)
    return asyncio.run(pool.arequest(method, path, **options))


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("call", CALLS)
def test_calls_follow_a_redirect_within_the_origin(
    call: str,
    location: str,
    status: int,
    hooked: bool,
    secret: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    """Scenario 58: with the key, HEADERS, the method and the body, on the same connection."""
    server = serve(redirecting(location, status))
    server.gate("head").open()
    server.gate("token").open()
    pool = configure(server, HEADERS={"X-Team": "blue", "Cookie": "a=b"})
    if hooked:
        hook_into(pool)
    assert ask(call, pool).text
    first, second = server.requests
    assert (second.method, second.body) == ("POST", first.body)
    assert second.target.endswith("/moved?a=1")
    assert second.headers == first.headers
    assert second.headers["authorization"] == f"Bearer {secret}"
    assert second.headers["cookie"] == "a=b"
    assert second.connection == first.connection
    assert pool.stats().cancelled == 0


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("call", STREAMS)
def test_the_body_of_a_redirect_is_not_waited_for(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Closing it counts as no cancellation."""

    async def redirect(conn: Any) -> None:
        await conn.read_request()
        await conn.send_head(307, {"Location": "/v1/moved", "Content-Length": "9"})
        await conn.hold()

    server = serve(per_connection(redirect, model))
    server.gate("head").open()
    server.gate("token").open()
    pool = configure(server)
    if hooked:
        hook_into(pool)
    assert ask(call, pool).text
    server.wait_until(lambda s: len(s.disconnects) == 1)
    assert pool.stats().cancelled == 0


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_redirected_to_another_origin_fails_and_names_it(
    call: str,
    hooked: bool,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    """Scenario 58: the prompt goes nowhere, and the error shows no secret of the URL."""
    elsewhere = serve(echo)
    place = f"{elsewhere.url}/v1/moved"
    server = serve(redirecting(f"http://user:hush@{elsewhere.authority}/v1/moved?token=hush"))
    pool = configure(server)
    if hooked:
        hook_into(pool)
    with pytest.raises(exceptions.APIStatusError, match=f"307 .*redirects to {place}. .*BASE_URL") as caught:
        ask(call, pool)
    assert "hush" not in str(caught.value)
    assert caught.value.status_code == 307
    assert elsewhere.requests == []


FOREIGN = ["https://{authority}/v1/moved", "http://localhost:{port}/v1/moved", "//127.0.0.1:9/v1/moved"]


@pytest.mark.parametrize("location", FOREIGN)
@pytest.mark.parametrize("call", [*CALLS, *CLIENTS])
def test_another_scheme_host_or_port_is_another_origin(
    call: str, location: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58: even if the same server answers there."""
    server = serve(redirecting(location))
    pool = configure(server)
    if call in CLIENTS:
        assert send(call, pool).status_code == 307
    else:
        with pytest.raises(exceptions.APIStatusError, match="307"):
            ask(call, pool)
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "location", "shown"),
    [
        (301, "/v2/chat", "redirects to /v2/chat"),
        (302, "/login?next=/v1", "redirects to /login."),
        (303, "?a=b", "redirects to its own URL"),
        (307, "http://a:b/", "redirects to an invalid URL"),
        (308, "ftp://127.0.0.1/a", "redirects to ftp://127.0.0.1/a"),
    ],
)
def test_other_redirects_fail_and_say_where_they_point(
    call: str,
    status: int,
    location: str,
    shown: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    server = serve(reply(status, b"<html>", {"Location": location}))
    with pytest.raises(exceptions.APIStatusError) as caught:
        ask(call, configure(server))
    assert shown in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_circle_of_redirects_ends(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(reply(307, b"", {"Location": "/v1/chat/completions"}))
    with pytest.raises(exceptions.APIStatusError, match="at most 20 times"):
        ask(call, configure(server))
    assert len(server.requests) == 21


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("body", [{"content": b"raw"}, {"files": {"file": ("a", io.BytesIO(b"raw"))}}])
def test_clients_follow_a_redirect_within_the_origin(
    body: dict[str, Any],
    kind: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    """Scenario 58: as SDKs do with their own clients; the keys of SDKs and of the pool go along."""
    server = serve(redirecting("/v1/moved", then=echo))
    pool = configure(server, HEADERS={"X-Team": "blue"})
    own = {"X-API-Key": "mine", "Cookie": "a=b"}
    response = send(kind, pool, headers=own, **body)
    first, second = server.requests
    assert (second.method, second.body, second.headers) == ("POST", first.body, first.headers)
    assert second.headers.items() >= {"x-api-key": "mine", "cookie": "a=b", "x-team": "blue"}.items()
    assert [earlier.status_code for earlier in response.history] == [307]


@pytest.mark.parametrize("kind", CLIENTS)
def test_clients_return_a_redirect_that_they_do_not_follow(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58: to another origin, by another status, with a body in pieces, or with False."""
    elsewhere = serve(echo)

    def pieces() -> Any:
        yield b"a"

    async def apieces() -> Any:
        yield b"a"

    answers: list[tuple[str, int, dict[str, Any]]] = [
        (f"{elsewhere.url}/moved", 307, {"content": b"prompt"}),
        ("/v1/moved", 302, {"content": b"prompt"}),
        ("/v1/moved", 307, {"content": pieces() if kind == "request" else apieces()}),
        ("/v1/moved", 307, {"content": b"prompt", "follow_redirects": False}),
    ]
    for location, status, options in answers:
        server = serve(redirecting(location, status))
        response = send(kind, configure(server), **options)
        assert (response.status_code, response.headers["location"]) == (status, location)
        assert response.text == "<html>moved</html>"
        assert len(server.requests) == 1
    assert elsewhere.requests == []


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("own", [{}, {"Authorization": "Bearer mine"}])
def test_a_redirect_to_another_origin_that_the_caller_wants_carries_no_key(
    own: dict[str, str], kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 58: neither keys, cookies nor custom headers, of the settings or of the request."""
    elsewhere = serve(echo)
    server = serve(redirecting(f"{elsewhere.url}/moved"))
    pool = configure(server, HEADERS={"X-Team": "blue", "User-Agent": "shop/1"})
    headers = {"X-API-Key": "mine", "api-key": "mine", "Cookie": "a=b", "X-Own": "mine", "Range": "bytes=0-1"}
    send(kind, pool, "POST", json={}, headers=headers | own, follow_redirects=True)
    assert set(server.requests[0].headers) >= {"x-api-key", "api-key", "cookie", "x-own", "x-team", "range"}
    kept = {"accept", "accept-encoding", "content-length", "content-type", "host", "range"}
    assert elsewhere.requests[0].headers.keys() - {"connection"} == kept
