"""``with_options``: the same pool, with other headers, parameters and timeouts for some calls."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx

from llm_pool import exceptions, pool
from llm_pool.types import LLMPool
from testbed.behaviours import close, echo, json_reply, per_connection, raw, reply, stall, steps
from testbed.chat import chat_completion
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.calls import CALLS, STREAMS, ask, hook_into
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.record import CallRecord
    from testbed import ScriptedServer, ServerConnection
    from testbed.provider import ScriptedProvider

SECRET = "sk-of-a-tenant-0123456789"
BODY = {"messages": [{"role": "user", "content": "hello"}]}

ways = pytest.mark.parametrize("hooked", [False, True])
every_call = pytest.mark.parametrize("call", [*CALLS, "request", "arequest"])
every_model_call = pytest.mark.parametrize("call", CALLS)


def make(call: str, pool: LLMPool, **options: Any) -> Any:
    if call == "request":
        return pool.request("POST", "chat/completions", json=BODY, **options)
    if call == "arequest":
        return asyncio.run(pool.arequest("POST", "chat/completions", json=BODY, **options))
    return ask(call, pool, **options)


@pytest.fixture
def answering(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> Callable[..., tuple[LLMPool, ScriptedServer]]:
    """``answering(hooked, HEADERS=...)``: a pool, with hooks in its clients or without, and its server."""

    def start(hooked: bool, **settings: Any) -> tuple[LLMPool, ScriptedServer]:
        made = configure(upstream, **settings)
        if hooked:
            hook_into(made)
        return made, upstream

    return start


@ways
@every_call
def test_the_calls_made_through_it_send_its_headers_and_query(
    call: str, hooked: bool, answering: Any, secret: str
) -> None:
    base, server = answering(
        hooked, HEADERS={"X-Team": "blue", "Accept": "text/x"}, QUERY={"a": "1", "b": "2"}
    )
    other = base.with_options(
        headers={"x-TEAM": "red", "Accept": "*/*", "User-Agent": "shop/1"}, query={"b": ["3", "4"]}
    )
    make(call, other)
    make(call, base)
    changed, unchanged = server.requests
    assert changed.target == "/v1/chat/completions?a=1&b=3&b=4"
    assert unchanged.target == "/v1/chat/completions?a=1&b=2"
    names = ("x-team", "accept", "user-agent", "authorization")
    assert [changed.headers[name] for name in names] == ["red", "*/*", "shop/1", f"Bearer {secret}"]
    assert changed.head.lower().count(b"\r\nx-team:") == 1
    assert [unchanged.headers[name] for name in names[:2]] == ["blue", "text/x"]


@ways
@pytest.mark.parametrize("call", ["embed", "aembed"])
def test_embeddings_take_the_options(
    call: str, hooked: bool, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    base = configure(llm_provider)
    if hooked:
        hook_into(base)
    other = base.with_options(headers={"X-A": "1"}, query={"a": "1"}, idempotency_key="k-1")
    if call == "embed":
        other.embed("hello")
    else:
        asyncio.run(other.aembed("hello"))
    [request] = llm_provider.requests
    assert request.target == "/v1/embeddings?a=1"
    assert (request.headers["x-a"], request.headers["idempotency-key"]) == ("1", "k-1")


@every_model_call
def test_a_changed_key_is_sent(call: str, answering: Any) -> None:
    keys = iter(["key-1", "key-2"])
    base, server = answering(False, API_KEY=lambda: next(keys))
    other = base.with_options(headers={"X-Team": "red"})
    make(call, other)
    make(call, other)
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer key-1", "Bearer key-2"]


@every_call
def test_options_add_up(call: str, answering: Any) -> None:
    base, server = answering(False)
    first = base.with_options(headers={"X-A": "1", "X-B": "1"}, query={"a": "1"}, timeout={"read": 3})
    second = first.with_options(headers={"x-b": "2"}, query={"b": "2"}, timeout=9, idempotency_key="k-1")
    make(call, second)
    [request] = server.requests
    assert request.target.endswith("?a=1&b=2")
    sent = [request.headers[name] for name in ("x-a", "x-b", "idempotency-key")]
    assert sent == ["1", "2", "k-1"]
    timeouts = second.settings.pool.timeouts
    assert (timeouts.read, timeouts.total, timeouts.write) == (3.0, 9.0, 10.0)


def test_it_is_the_same_pool(answering: Any, records: list[CallRecord]) -> None:
    base, _ = answering(False)
    other = base.with_options(timeout=5)
    assert isinstance(other, LLMPool)
    assert repr(other) == f"{repr(base)[:-1]} with options>"
    assert pool.with_options(timeout=5).engine is base.engine
    base.complete("hello")
    completion = other.complete("hello")
    assert completion.timing.reused
    assert other.stats().requests == base.stats().requests == 2
    assert [(record.alias, record.operation) for record in records] == [("default", "complete")] * 2
    other.close()
    for closed in (base, other):
        with pytest.raises(exceptions.PoolClosed):
            closed.complete("hello")
        with pytest.raises(exceptions.PoolClosed):
            closed.request("GET", "models")


@pytest.mark.parametrize("name", ["client", "aclient"])
def test_it_has_no_client(name: str, answering: Any) -> None:
    """The client belongs to all callers: the options would have no effect on it."""
    other = answering(False)[0].with_options(timeout=5)
    with pytest.raises(
        RuntimeError, match=rf"does not apply to {name}.*pools\['default'\]\.{name}, and give"
    ):
        getattr(other, name)


# timeout


@ways
@every_call
@pytest.mark.parametrize(
    ("timeout", "kind"),
    [
        (0.05, exceptions.TotalTimeout),
        ({"total": 0.05}, exceptions.TotalTimeout),
        ({"read": 0.05}, exceptions.ReadTimeout),
    ],
)
def test_a_timeout_ends_the_calls_made_through_it(
    timeout: Any,
    kind: type[Exception],
    call: str,
    hooked: bool,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    base = configure(serve(stall))
    if hooked:
        hook_into(base)
    with pytest.raises(kind, match=r"0\.05 s"):
        make(call, base.with_options(timeout=timeout))


@pytest.mark.parametrize("call", STREAMS)
@ways
def test_a_timeout_of_a_stream_ends_it(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    base = configure(serve(stall))
    if hooked:
        hook_into(base)
    with pytest.raises(exceptions.TokenTimeout, match=r"0\.05 s after the request"):
        make(call, base.with_options(timeout={"first_token": 0.05}))


@ways
@every_call
@pytest.mark.parametrize("timeout", [None, {"total": 60}])
def test_a_longer_timeout_replaces_that_of_the_settings(
    timeout: Any,
    call: str,
    hooked: bool,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    """The call that begins first is answered once the other, with the pool's own timeout, has failed."""

    async def wait(conn: ServerConnection) -> None:
        await conn.wait_for("answer")
        await model(conn)

    server = serve(wait)
    server.gate("head").open()
    server.gate("token").open()
    base = configure(server, TIMEOUTS={"total": 0.1})
    if hooked:
        hook_into(base)
    results: list[Any] = []
    patient = base.with_options(timeout=timeout)
    thread = threading.Thread(target=lambda: results.append(make(call, patient)))
    thread.start()
    server.wait_until(lambda s: s.connections_accepted == 1)
    with pytest.raises(exceptions.TotalTimeout):
        base.complete("hello")
    server.gate("answer").open()
    thread.join(AT_ONCE)
    assert len(results) == 1


@pytest.mark.parametrize("call", ["request", "arequest"])
def test_the_arguments_of_a_request_replace_the_options(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(echo)
    other = configure(server).with_options(
        headers={"X-A": "1", "X-B": "1"}, query={"a": "1"}, timeout={"read": 9}
    )
    make(call, other, headers={"x-a": "2"}, params={"a": "2"})
    [request] = server.requests
    assert (request.headers["x-a"], request.headers["x-b"]) == ("2", "1")
    assert request.target.endswith("?a=2")
    silent = configure(serve(stall)).with_options(timeout={"read": 50, "total": 60})
    with pytest.raises(exceptions.ReadTimeout, match=r"0\.05 s"):
        make(call, silent, timeout=0.05)


@every_model_call
def test_a_timeout_set_on_a_client_holds_unless_the_options_have_one(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    base = configure(serve(stall))
    for client in (base.client, base.aclient):
        client.timeout = 0.05  # type: ignore[assignment]
    with pytest.raises(exceptions.ReadTimeout, match=r"0\.05"):
        make(call, base.with_options(timeout=60, headers={"X-A": "1"}))
    with pytest.raises(exceptions.ReadTimeout, match=r"0\.06"):
        make(call, base.with_options(timeout={"read": 0.06}))


# idempotency_key


@ways
@every_call
def test_with_an_idempotency_key_a_request_is_sent_again(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    dying = steps(chat_completion(), raw(), close)
    server = serve(per_connection(dying, dying, model))
    server.gate("head").open()
    server.gate("token").open()
    base = configure(server)
    if hooked:
        hook_into(base)
    base.complete("hello")
    with pytest.raises(exceptions.ReadFailed):
        base.complete("hello")
    base.complete("hello")
    make(call, base.with_options(idempotency_key="order-7"))
    assert [request.headers.get("idempotency-key") for request in server.requests] == [
        *(None, None, None),
        *("order-7", "order-7"),
    ]


# Keys


@ways
@every_call
@pytest.mark.parametrize("name", ["authorization", "Authorization", "api-key"])
def test_a_header_with_a_key_replaces_the_pools_key(
    name: str, call: str, hooked: bool, answering: Any
) -> None:
    base, server = answering(hooked, HEADERS={"API-Key": "gateway-key-1", "X-A": "1"})
    make(call, base.with_options(headers={name: SECRET}))
    headers = server.requests[0].headers
    keys = {header: headers[header] for header in ("authorization", "api-key") if header in headers}
    assert keys == {name.lower(): SECRET}
    assert headers["x-a"] == "1"


@pytest.mark.parametrize("call", ["request", "arequest"])
def test_an_auth_of_a_request_replaces_a_key_of_the_options(call: str, answering: Any) -> None:
    base, server = answering(False, HEADERS={"X-A": "1"})
    other = base.with_options(headers={"Authorization": SECRET, "X-A": "2"}, query={"a": "1"})
    make(call, other, auth=None)
    [request] = server.requests
    assert "authorization" not in request.headers
    assert (request.headers["x-a"], request.target) == ("2", "/v1/chat/completions?a=1")


@ways
@every_model_call
def test_no_error_shows_a_key_of_the_options(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    said = json_reply({"error": {"message": f"Bad key {SECRET}, query-secret."}}, status=401)
    base = configure(serve(said))
    if hooked:
        hook_into(base)
    other = base.with_options(headers={"Authorization": f"Bearer {SECRET}"}, query={"sig": "query-secret"})
    with pytest.raises(exceptions.AuthenticationFailed, match=r"Bad key \*\*\*, \*\*\*\.") as caught:
        make(call, other)
    assert SECRET not in f"{caught.value!r}{caught.value.body}{other!r}{other.settings!r}"


@ways
@every_model_call
def test_a_redirect_within_the_origin_keeps_the_headers(
    call: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    moved = reply(307, headers={"Location": "/moved", "Connection": "close"})
    server = serve(per_connection(moved, model))
    server.gate("head").open()
    server.gate("token").open()
    base = configure(server)
    if hooked:
        hook_into(base)
    make(call, base.with_options(headers={"X-A": "1", "Authorization": SECRET}))
    assert [request.headers["x-a"] for request in server.requests] == ["1", "1"]
    assert server.requests[1].headers["authorization"] == SECRET


@pytest.mark.parametrize("call", ["request", "arequest"])
def test_another_server_gets_neither_headers_nor_query(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    other = serve(echo)
    redirect = reply(307, headers={"Location": f"{other.url}/moved"})
    options = {"headers": {"Authorization": SECRET, "X-A": "1", "User-Agent": "shop"}, "query": {"a": "1"}}
    with_options = configure(serve(redirect)).with_options(**options)
    make(call, with_options, follow_redirects=True)
    method = with_options.request if call == "request" else with_options.arequest
    sent = method("GET", f"{other.url}/direct")
    if call == "arequest":
        asyncio.run(sent)
    assert [request.target for request in other.requests] == ["/moved", "/direct"]
    for request in other.requests:
        assert {"authorization", "x-a"}.isdisjoint(request.headers)
        assert request.headers.get("user-agent") != "shop"


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
@every_call
def test_mocks_see_the_options(call: str, using: str, answering: Any) -> None:
    base, server = answering(False)
    events = 'data: {"choices": [{"index": 0, "delta": {"content": "mocked"}}]}\n\ndata: [DONE]\n\n'
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "mocked"}}]}
    response = httpx.Response(200, text=events) if call in STREAMS else httpx.Response(200, json=whole)
    with respx.mock(using=using) as router:
        route = router.post(f"{server.url}/v1/chat/completions", params={"a": "1"})
        route.mock(return_value=response)
        make(call, base.with_options(headers={"X-A": "1"}, query={"a": "1"}, timeout={"read": 7}))
    request = route.calls.last.request
    assert request.headers["x-a"] == "1"
    assert request.extensions["timeout"]["read"] == 7.0


def test_the_check_uses_the_options(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(json_reply({"data": [{"id": "test-model"}]}))
    configure(server).with_options(headers={"X-A": "1"}, query={"a": "1"}).check()
    assert {(request.target, request.headers["x-a"]) for request in server.requests} == {
        ("/v1/models?a=1", "1")
    }


# Bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": "5"}, "with_options(timeout=...) is a str, not a number of seconds. Write 5, without"),
        ({"timeout": True}, "with_options(timeout=...) is a bool, not a number of seconds."),
        (
            {"timeout": httpx.Timeout(5)},
            'Give a number, or None for no limit. For single timeouts give a dict such as {"read": 60.0}.',
        ),
        ({"timeout": 0}, "with_options(timeout=...) must be greater than 0. Give seconds, or None"),
        ({"timeout": float("nan")}, "with_options(timeout=...) is not a finite number."),
        (
            {"timeout": {"raed": 5}},
            "with_options(timeout=...)['raed'] is not a known key. Did you mean 'read'?",
        ),
        ({"timeout": {"read": "5"}}, "with_options(timeout=...)['read'] = '5' is a str, not a number of"),
        ({"timeout": {"total": -1}}, "with_options(timeout=...)['total'] = -1 is less than 0."),
        ({"headers": [("a", "b")]}, "with_options(headers=...) is a list, not a dict. Give a dict"),
        (
            {"headers": {"X-A": f"{SECRET}\r\nX-B: 1"}},
            "with_options(headers=...) has 'X-A' with a value that no",
        ),
        (
            {"headers": {"X A": SECRET}},
            "with_options(headers=...) has 'X A', which is not a valid header name.",
        ),
        (
            {"headers": {"X-A": None}},
            "with_options(headers=...) has 'X-A', whose name or value is not a string.",
        ),
        (
            {"headers": {"Content-Length": "5"}},
            "has 'Content-Length', which the pool itself sets. Leave it out.",
        ),
        ({"query": "a=1"}, "with_options(query=...) is a str, not a dict. Give a dict"),
        ({"query": {"a": 1}}, "with_options(query=...) has 'a', whose name or value is not a string."),
        ({"idempotency_key": 5}, "with_options(idempotency_key=...) is an int, not a string. Give a string"),
        ({"idempotency_key": ""}, "with_options(idempotency_key=...) is empty."),
        ({"idempotency_key": f"{SECRET}\n"}, "with_options(idempotency_key=...) holds a character that no"),
        ({"retries": 0}, "with_options(retries=...) is not supported yet."),
        ({"tenant": None}, "with_options(tenant=...) is not supported yet."),
        ({"priority": "low"}, "with_options(priority=...) is not supported yet."),
    ],
)
def test_an_invalid_option_is_refused_at_once(options: dict[str, Any], says: str, answering: Any) -> None:
    base, server = answering(False)
    with pytest.raises(exceptions.InvalidParameter) as caught:
        base.with_options(**options)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)
    assert server.connections_accepted == 0


def test_an_unknown_option_is_a_type_error(answering: Any) -> None:
    with pytest.raises(TypeError, match="timeouts"):
        answering(False)[0].with_options(timeouts=5)
