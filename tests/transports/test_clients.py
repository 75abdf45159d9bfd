"""``client``, ``aclient``, ``request`` and ``arequest``: httpx on the pool."""

from __future__ import annotations

import asyncio
import io
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from llm_pool import exceptions
from testbed.behaviours import early_reply, echo, reply, reset, stall, steps
from testbed.ports import refused_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

WHERE: ContextVar[str] = ContextVar("WHERE", default="nowhere")


@pytest.fixture
def pool(configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]) -> LLMPool:
    """A pool whose provider echoes each request."""
    return configure(serve(echo))


def send(kind: str, pool: LLMPool, method: str, path: str, **options: Any) -> httpx.Response:
    """Send by ``request``, or by ``arequest`` on a new event loop."""
    if kind == "request":
        return pool.request(method, path, **options)
    return asyncio.run(pool.arequest(method, path, **options))


both = pytest.mark.parametrize("kind", ["request", "arequest"])


@both
@pytest.mark.parametrize("path", ["models", "/models"])
def test_a_path_is_relative_to_the_base_url(kind: str, path: str, pool: LLMPool) -> None:
    seen = send(kind, pool, "GET", path, params={"limit": 2, "after": "é"}).json()
    assert (seen["method"], seen["target"]) == ("GET", "/v1/models?limit=2&after=%C3%A9")


@both
@pytest.mark.parametrize("hooked", [False, True])
def test_headers_of_the_settings_replace_the_defaults(
    kind: str, hooked: bool, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """On every call, direct or through httpx. A request's own headers replace both."""
    server = serve(echo)
    own = {"User-Agent": "shop/1", "accept": "text/plain", "X-Team": "blue"}
    pool = configure(server, HEADERS=own)
    if hooked:
        pool.client.event_hooks = {"request": [lambda _: None]}
    seen = send(kind, pool, "GET", "models").json()["headers"]
    assert (seen["user-agent"], seen["accept"], seen["x-team"]) == ("shop/1", "text/plain", "blue")
    seen = send(kind, pool, "GET", "models", headers={"X-Team": "red", "Accept": "*/plain"}).json()["headers"]
    assert (seen["accept"], seen["x-team"]) == ("*/plain", "red")
    with pytest.raises(exceptions.InvalidResponse):
        pool.complete("hello")
    seen = server.requests[-1].headers
    assert (seen["user-agent"], seen["accept"], seen["x-team"]) == ("shop/1", "text/plain", "blue")


@both
def test_an_invalid_url_raises_an_error_of_the_pool(kind: str, pool: LLMPool) -> None:
    with pytest.raises(exceptions.LLMPoolError, match="the URL cannot be used"):
        send(kind, pool, "GET", "http://[::1")


@both
def test_every_kind_of_httpx_body_arrives(kind: str, pool: LLMPool) -> None:
    assert send(kind, pool, "POST", "a", json={"a": 1}).json()["body"] == '{"a":1}'
    assert send(kind, pool, "POST", "a", data={"a": "1"}).json()["body"] == "a=1"
    assert send(kind, pool, "PUT", "a", content=b"raw").json()["body"] == "raw"
    assert send(kind, pool, "DELETE", "a").json()["method"] == "DELETE"
    files = {"file": ("batch.jsonl", io.BytesIO(b"{}\n" * 100_000))}
    seen = send(kind, pool, "POST", "files", files=files, data={"purpose": "batch"}).json()
    assert seen["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert seen["body"].count("{}\n") == 100_000
    assert 'name="purpose"' in seen["body"]
    assert seen["connection"] == 0  # all on the first connection


def test_a_generator_is_read_in_its_callers_own_thread_and_context(pool: LLMPool) -> None:
    threads = set()

    def body() -> Iterator[bytes]:
        for piece in ("one", "two", WHERE.get()):
            threads.add(threading.current_thread())
            yield piece.encode()

    WHERE.set("in a view")
    seen = pool.request("POST", "a", content=body()).json()
    assert seen["body"] == "onetwoin a view"
    assert seen["headers"]["transfer-encoding"] == "chunked"
    assert threads == {threading.current_thread()}


async def test_an_async_generator_is_read_in_its_callers_own_task_and_context(pool: LLMPool) -> None:
    tasks = set()

    async def body() -> AsyncIterator[bytes]:
        for piece in ("one", "two", WHERE.get()):
            tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            yield piece.encode()

    WHERE.set("in a view")
    assert (await pool.arequest("POST", "a", content=body())).json()["body"] == "onetwoin a view"
    assert tasks == {asyncio.current_task()}


@both
def test_an_error_in_the_body_is_raised_as_it_is_and_ends_the_connection(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    def body() -> Iterator[bytes]:
        yield b"one"
        raise LookupError("in the view's own code")

    async def abody() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    server = serve(echo)
    pool = configure(server)
    with pytest.raises(LookupError, match="in the view's own code"):
        send(kind, pool, "POST", "a", content=body() if kind == "request" else abody())
    server.wait_until(lambda s: len(s.disconnects) == 1)
    assert send(kind, pool, "GET", "b").json()["connection"] == 1


@both
def test_an_early_answer_ends_the_upload(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    """Scenario 34: it is delivered, the rest of the body is not sent, and the connection is not reused."""
    server = serve(early_reply(413, b"too much"))
    pool = configure(server)

    def body() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    async def abody() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    for _ in range(2):
        answer = send(kind, pool, "POST", "a", content=body() if kind == "request" else abody())
        assert (answer.status_code, answer.text) == (413, "too much")
    assert server.connections_accepted == 2


def test_closing_the_shared_client_does_nothing(pool: LLMPool) -> None:
    client = pool.client
    client.close()
    for _ in range(2):
        with pool.client as same:
            assert same is client
    assert client.get("a").json()["connection"] == pool.request("GET", "b").json()["connection"] == 0


async def test_closing_the_shared_async_client_does_nothing(pool: LLMPool) -> None:
    client = pool.aclient
    await client.aclose()
    for _ in range(2):
        async with pool.aclient as same:
            assert same is client
    assert (await client.get("a")).json()["connection"] == 0
    assert (await pool.arequest("GET", "b")).json()["connection"] == 0


def test_one_async_client_works_on_any_event_loop(pool: LLMPool) -> None:
    """Scenario 53."""
    client = pool.aclient
    connections = {asyncio.run(client.get("a")).json()["connection"] for _ in range(10)}
    assert connections == {0}


@both
def test_the_pools_errors_are_caught_as_httpx_errors(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    def caught(pool: LLMPool) -> Any:
        with pytest.raises(httpx.TransportError) as raised:
            send(kind, pool, "POST", "a", json={})
        assert isinstance(raised.value, exceptions.LLMPoolError)
        assert raised.value.request.method == "POST"
        assert raised.value.request.url.path == "/v1/a"
        return raised.value

    with refused_port() as port:
        dead = configure(serve(echo), BASE_URL=f"http://127.0.0.1:{port}/v1")
        assert isinstance(caught(dead), httpx.ConnectError)
    silent = configure(serve(stall), TIMEOUTS={"read": 0.2})
    assert isinstance(caught(silent), httpx.ReadTimeout)
    rude = configure(serve(steps(read_one, reset)))
    assert isinstance(caught(rude), httpx.ReadError)


async def read_one(conn: Any) -> None:
    await conn.read_request()


@both
def test_a_pool_timeout_is_an_httpx_pool_timeout(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 8: its message describes the pool."""
    upstream.gate("token").shut()
    limits = {"max_connections": 1, "max_keepalive_connections": 1}
    pool = configure(upstream, LIMITS=limits, TIMEOUTS={"pool": 0.2})
    # Open the connection for the stream now: a dial may take longer than the pool timeout.
    pool.request("POST", "a", json={"messages": [{"content": "hello"}]}, timeout=5.0)
    with pool.stream("hello") as stream:
        upstream.gate("token").admit()
        next(stream)
        with pytest.raises(
            httpx.PoolTimeout, match=r"in use 1, idle 0, dialing 0, waiting 1, max 1"
        ) as caught:
            send(kind, pool, "GET", "a")
    assert caught.value.request.url.path == "/v1/a"


@both
def test_a_request_may_have_its_own_timeout(
    kind: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(steps(reply(), stall)))
    send(kind, pool, "GET", "a")  # dials, so that the timeout below does not limit the dial
    with pytest.raises(exceptions.ReadTimeout, match=r"0\.2 s"):
        send(kind, pool, "GET", "a", timeout=0.2)


def test_a_url_of_another_scheme_is_refused(pool: LLMPool) -> None:
    with pytest.raises(httpx.UnsupportedProtocol) as caught:
        pool.request("GET", "ftp://127.0.0.1/a")
    assert isinstance(caught.value, exceptions.LLMPoolError)
