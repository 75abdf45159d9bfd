"""QUERY: it is in the URL of every request to the pool's server, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from llm_pool import exceptions
from llm_pool.transports.query import Query
from testbed.behaviours import json_reply, per_connection, reply
from tests.fixtures.calls import CALLS, STREAMS, ask, hook_into
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

SECRET = "shared-access/signature="
QUERY = {"api-version": "2024-10-21", "sig": SECRET, "tag": ["a", "ä b"]}
SENT = "api-version=2024-10-21&sig=shared-access%2Fsignature%3D&tag=a&tag=%C3%A4%20b"

ways = pytest.mark.parametrize("hooked", [False, True])


def send(kind: str, pool: LLMPool, url: str, **options: Any) -> httpx.Response:
    if kind in ("request", "client"):
        return (
            getattr(pool, kind).get(url, **options)
            if kind == "client"
            else pool.request("GET", url, **options)
        )
    if kind == "aclient":
        return asyncio.run(pool.aclient.get(url, **options))
    return asyncio.run(pool.arequest("GET", url, **options))


kinds = pytest.mark.parametrize("kind", ["request", "arequest", "client", "aclient"])


@ways
@pytest.mark.parametrize("call", CALLS)
def test_every_call_to_a_model_sends_the_query(
    call: str, hooked: bool, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, QUERY=QUERY)
    if hooked:
        hook_into(pool)
    ask(call, pool)
    assert [request.target for request in upstream.requests] == [f"/v1/chat/completions?{SENT}"]


@ways
def test_a_query_of_the_url_is_sent(
    hooked: bool, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, BASE_URL=f"{upstream.url}/openai/?api-version=1")
    if hooked:
        hook_into(pool)
    pool.complete("hello")
    assert upstream.requests[0].target == "/openai/chat/completions?api-version=1"


@kinds
def test_a_parameter_of_a_request_replaces_that_of_the_settings(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(json_reply())
    pool = configure(server, QUERY={"api-version": "1", "tag": ["a", "b"]})
    send(kind, pool, "files")
    send(kind, pool, "files?tag=c")
    send(kind, pool, "files", params={"api-version": "2"})
    assert [request.target for request in server.requests] == [
        "/v1/files?api-version=1&tag=a&tag=b",
        "/v1/files?tag=c&api-version=1",
        "/v1/files?api-version=2&tag=a&tag=b",
    ]


@kinds
def test_another_server_gets_no_query(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    other = serve(json_reply())
    redirect = reply(307, headers={"Location": f"{other.url}/moved"})
    pool = configure(serve(redirect), QUERY=QUERY)
    send(kind, pool, f"{other.url}/files")
    send(kind, pool, "files", follow_redirects=True)
    assert [request.target for request in other.requests] == ["/files", "/moved"]


@kinds
def test_an_auth_of_a_request_keeps_the_query(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(json_reply())
    send(kind, configure(server, QUERY={"api-version": "1"}), "files", auth=None)
    assert server.requests[0].target == "/v1/files?api-version=1"


@ways
@pytest.mark.parametrize("call", CALLS)
def test_a_redirect_leads_to_exactly_its_location(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    moved = reply(307, headers={"Location": "/moved?x=1", "Connection": "close"})
    server = serve(per_connection(moved, model))
    server.gate("head").open()
    server.gate("token").open()
    pool = configure(server, QUERY={"api-version": "1"})
    if hooked:
        hook_into(pool)
    ask(call, pool)
    assert [request.target for request in server.requests] == [
        "/v1/chat/completions?api-version=1",
        "/moved?x=1",
    ]


@ways
@pytest.mark.parametrize("call", CALLS)
def test_no_error_shows_a_value_of_the_query_but_the_version(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    said = f"no such thing: /v1/chat/completions?{SENT} ({SECRET}, ä b)"
    pool = configure(serve(json_reply({"error": {"message": said}}, status=404)), QUERY=QUERY)
    if hooked:
        hook_into(pool)
    with pytest.raises(exceptions.NotFound) as caught:
        ask(call, pool)
    assert "api-version=2024-10-21&sig=***&tag=" in str(caught.value)
    assert "shared" not in f"{caught.value!r}{caught.value.body}"


@kinds
def test_no_log_shows_the_query(
    kind: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(json_reply())
    send(kind, configure(server, QUERY=QUERY), "files")
    assert f'HTTP Request: GET {server.url}/v1/files "HTTP/1.1 200' in caplog.text
    assert "shared" not in caplog.text


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@pytest.mark.parametrize("call", CALLS)
def test_mocks_see_the_query(
    call: str, using: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, QUERY=QUERY)
    text = 'data: {"choices": [{"index": 0, "delta": {"content": "mocked"}}]}\n\ndata: [DONE]\n\n'
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "mocked"}}]}
    response = httpx.Response(200, text=text) if call in STREAMS else httpx.Response(200, json=whole)
    with respx.mock(using=using) as router:
        router.post(f"{upstream.url}/v1/chat/completions", params={"sig": SECRET}).mock(return_value=response)
        assert ask(call, pool).text == "mocked"


def test_the_check_sends_the_query(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(json_reply({"data": [{"id": "test-model"}]}))
    report = configure(server, QUERY=QUERY).check()
    assert {request.target for request in server.requests} == {f"/v1/models?{SENT}"}
    assert "shared" not in f"{report!r}{report.as_dict()}"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(texts, st.lists(texts, min_size=1)))
def test_any_text_arrives_unchanged_in_visible_ascii(parameters: dict[str, list[str]]) -> None:
    target = Query(parameters).add_to(b"/v1/files")
    assert target.isascii()
    assert all(33 <= byte <= 126 for byte in target)
    expected = [(name, value) for name, values in parameters.items() for value in values]
    assert httpx.URL(f"http://x{target.decode()}").params.multi_items() == expected
    assert Query(parameters).add_to(target) == target
