"""The demo: its choice of a provider, its validation, its simulated model server, its proxies, its views."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from django.test import AsyncClient

from demo_project import agent
from demo_project import settings as demo_settings
from demo_project.upstream import simulated
from demo_project.upstream.counting_proxy import Counts, counting_proxy, serve_counts
from demo_project.upstream.launcher import provider_is_configured
from demo_project.upstream.relay import relay
from demo_project.upstream.tcp_server import tcp_server
from demo_project.validation import MAX_BYTES, BadInput, read_distance, read_messages
from llm_pool.conf import load
from testbed.behaviours import close, json_reply, steps
from testbed.ports import refused_port
from tests.fixtures.callers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ROOT = Path(__file__).parents[2]
ROUND_TRIP = 0.05  # seconds
QUESTION = {"role": "user", "content": "Why is the sky blue?"}


# The choice of a provider.


@pytest.mark.parametrize(
    ("environ", "configured", "chosen"),
    [
        ({}, False, ("openai", "none needed")),
        ({"OPENAI_API_KEY": "a"}, True, ("openai", "a")),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, True, ("openai", "none needed")),
        ({"ANTHROPIC_API_KEY": "b"}, True, ("anthropic", "b")),
        ({"ANTHROPIC_API_KEY": "b", "OPENAI_API_KEY": "a"}, True, ("openai", "a")),
    ],
)
def test_the_provider_whose_variables_are_set_is_used(
    environ: dict[str, str], configured: bool, chosen: tuple[str, str]
) -> None:
    assert provider_is_configured(environ) is configured
    settings = demo_settings.provider_settings(environ)
    assert (settings["PROVIDER"], settings["API_KEY"]) == chosen
    [pool] = load({"default": settings}, {}).values()
    assert pool.base_url == settings["BASE_URL"]


# The validation of what the pages post.


def test_messages_are_read_without_other_keys() -> None:
    body = json.dumps({"messages": [{**QUESTION, "name": "x"}], "model": "another"}).encode()
    assert read_messages(body) == [QUESTION]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", '"messages" must be a list'),
        (b'{"messages": []}', "at least one message"),
        (b'{"messages": ["hello"]}', "Message 1 must be an object"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', '"role" must be one of'),
        (b'{"messages": [{"role": ["user"], "content": "x"}]}', '"role" must be one of'),
        (b'{"messages": [{"role": "user", "content": "  "}]}', "non-empty string"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "non-empty string"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', 'must have the role "user"'),
        (b" " * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_an_invalid_body_is_rejected_with_a_message(body: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_messages(body)


def test_a_distance_names_a_pool() -> None:
    assert read_distance(b"{}") == "default"
    assert read_distance(b'{"distance": "far"}') == "far"
    for unknown in (b'{"distance": "moon"}', b'{"distance": ["far"]}'):
        with pytest.raises(BadInput, match="near, far"):
            read_distance(unknown)


# The simulated model server.


@pytest.fixture
def upstream() -> Iterator[str]:
    """URL of a simulated model server. Its loop outlives the test's loop, as a pool's connections do."""

    async def serve(started: Future[tuple[int, Callable[[], object]]]) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with simulated.model_server() as port:
            started.set_result((port, functools.partial(loop.call_soon_threadsafe, over.set)))
            await over.wait()

    started: Future[tuple[int, Callable[[], object]]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(serve(started),))
    thread.start()
    port, end = started.result(timeout=5)
    yield f"http://127.0.0.1:{port}/v1"
    end()
    thread.join()


@pytest.fixture
async def client(upstream: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=upstream, limits=limits, trust_env=False) as client:
        yield client


async def test_a_simulated_answer_says_that_it_is_simulated(client: httpx.AsyncClient) -> None:
    response = await client.post("/chat/completions", json={"messages": [QUESTION]})
    completion = response.json()
    assert completion["model"] == simulated.MODEL
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["choices"][0]["message"]["content"].startswith("This answer is simulated")
    assert QUESTION["content"] in completion["choices"][0]["message"]["content"]


async def test_a_streamed_answer_equals_the_whole_answer(client: httpx.AsyncClient) -> None:
    asked = {"messages": [QUESTION], "max_tokens": 5}
    whole = (await client.post("/chat/completions", json=asked)).json()
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "/chat/completions", json=asked) as response:
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert chunks.pop()["usage"] == whole["usage"]
    assert chunks.pop()["choices"][0]["finish_reason"] == "length"
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert len(chunks) == 5


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/models", b"", 200),
        ("GET", "/elsewhere", b"", 404),
        ("POST", "/chat/completions", b"not JSON", 400),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b'{"messages": []}', 400),
        ("POST", "/chat/completions", b'{"messages": [{"content": "x"}], "max_tokens": "many"}', 400),
    ],
)
async def test_an_unsupported_request_gets_an_error_response(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    response = await client.request(method, path, content=body)
    assert response.status_code == status
    assert ("error" in response.json()) is (status != 200)


# The relay.


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_the_relay_adds_one_round_trip_to_a_connect_and_one_to_each_exchange() -> None:
    clock = asyncio.get_running_loop().time
    async with tcp_server(echo) as port, relay("127.0.0.1", port, ROUND_TRIP) as far_port:
        times = [clock()]
        reader, writer = await asyncio.open_connection("127.0.0.1", far_port)
        for _ in range(8):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            times.append(clock())
        writer.close()
        await writer.wait_closed()
    first, *later = [end - begin for begin, end in itertools.pairwise(times)]
    # A loop's clock may fire a timer early by its resolution, and a busy machine any of them late.
    assert first >= 2 * ROUND_TRIP - 0.005
    assert ROUND_TRIP - 0.005 <= min(later) < 2 * ROUND_TRIP - 0.005


async def test_chunks_in_transit_do_not_delay_each_other() -> None:
    sent = bytes(range(256)) * 4096 * 4  # 4 MB: at least 64 chunks
    clock = asyncio.get_running_loop().time
    async with tcp_server(echo) as port, relay("127.0.0.1", port, ROUND_TRIP) as far_port:
        reader, writer = await asyncio.open_connection("127.0.0.1", far_port)
        start = clock()
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        assert clock() - start < 64 * ROUND_TRIP / 2
        writer.close()
        await writer.wait_closed()


async def test_the_relay_closes_when_the_server_closes() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_server(leave) as port, relay("127.0.0.1", port, ROUND_TRIP) as far_port:
        reader, writer = await asyncio.open_connection("127.0.0.1", far_port)
        writer.write(b"x")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_the_relay_closes_when_the_server_refuses_the_connection() -> None:
    with refused_port() as port:
        async with relay("127.0.0.1", port, ROUND_TRIP) as far_port:
            reader, writer = await asyncio.open_connection("127.0.0.1", far_port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


# The counting proxy.


async def test_the_pool_and_other_clients_are_counted_separately() -> None:
    counts = Counts()
    asked = {"messages": [QUESTION], "max_tokens": 1}
    async with (
        simulated.model_server() as port,
        counting_proxy("127.0.0.1", port, counts) as proxy_port,
        serve_counts(counts) as counts_port,
    ):
        url = f"http://127.0.0.1:{proxy_port}/v1/chat/completions"
        for agent, calls in (("llm_pool/1", 3), ("httpx", 2)):
            async with httpx.AsyncClient(trust_env=False, headers={"User-Agent": agent}) as client:
                for _ in range(calls):
                    assert (await client.post(url, json=asked)).status_code == 200
        async with httpx.AsyncClient(trust_env=False) as client:
            shown = (await client.get(f"http://127.0.0.1:{counts_port}/")).json()
    pool, others = shown["pool"], shown["others"]
    assert (pool["connections"], pool["requests"], pool["reuses"], pool["in_progress"]) == (1, 3, 2, 0)
    assert (others["connections"], others["requests"], others["reuses"]) == (1, 2, 1)
    assert pool["first_byte"] >= 3 * simulated.FIRST_TOKEN


async def test_a_request_is_in_progress_until_the_client_disconnects() -> None:
    counts = Counts()
    asked = {"messages": [QUESTION], "stream": True}
    async with simulated.model_server() as port, counting_proxy("127.0.0.1", port, counts) as proxy_port:
        url = f"http://127.0.0.1:{proxy_port}/v1/chat/completions"
        async with (
            httpx.AsyncClient(trust_env=False, headers={"User-Agent": "llm_pool/1"}) as client,
            client.stream("POST", url, json=asked) as response,
        ):
            await anext(response.aiter_lines())
            assert counts.pool.in_progress == 1
        await until(lambda: counts.pool.in_progress == 0)


async def test_a_connection_stays_open_when_the_server_closes_without_announcing_it(serve: Any) -> None:
    """llama.cpp's server does this after each stream."""
    server = serve(steps(json_reply(), close))
    counts = Counts()
    async with (
        counting_proxy(server.host, server.port, counts, reconnect=True) as proxy_port,
        httpx.AsyncClient(trust_env=False, headers={"User-Agent": "llm_pool/1"}) as client,
    ):
        answers = [await client.post(f"http://127.0.0.1:{proxy_port}/", json={}) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20
    assert (counts.pool.connections, counts.pool.reuses) == (1, 19)
    assert server.connections_accepted == 20


# The views.


@pytest.fixture
def demo(settings: Any, upstream: str) -> None:
    """The demo's settings, with the simulated model server as upstream."""
    for name in ("MIDDLEWARE", "ROOT_URLCONF", "STATIC_URL", "DEMO_UPSTREAM", "DEMO_ROUND_TRIP"):
        setattr(settings, name, getattr(demo_settings, name))
    # DIRS finds the templates, because demo_project is not in the tests' INSTALLED_APPS.
    [engine] = demo_settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "DIRS": [ROOT / "demo_project" / "templates"]}]
    pool = {"PROVIDER": "openai", "BASE_URL": upstream, "API_KEY": "key", "MODEL": simulated.MODEL}
    settings.LLM_POOL = {"default": pool, "far": pool}


def parse(content: bytes) -> list[tuple[str, Any]]:
    """Return the server-sent events in ``content`` as pairs of name and data."""
    events = []
    for block in content.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        events.append((fields.get("event", "message"), json.loads(fields["data"])))
    return events


async def read(response: Any) -> bytes:
    return b"".join([piece async for piece in response.streaming_content])


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/", "/agent/"])
async def test_a_page_shows_its_upstream_and_contains_a_csrf_token(async_client: Any, path: str) -> None:
    response = await async_client.get(path)
    assert response.status_code == 200
    assert b"simulated at 127.0.0.1" in response.content
    assert b"csrfmiddlewaretoken" in response.content


@pytest.mark.usefixtures("demo")
async def test_an_answer_streams_and_ends_with_its_timing(async_client: Any) -> None:
    response = await async_client.post(
        "/answer/", json.dumps({"messages": [QUESTION]}), content_type="application/json"
    )
    assert response["Content-Type"].startswith("text/event-stream")
    *chunks, (name, done) = parse(await read(response))
    assert name == "done"
    assert "".join(chunk["text"] for _, chunk in chunks) == done["text"]
    assert done["text"].startswith("This answer is simulated")
    assert done["usage"]["output_tokens"] == len(chunks)
    timing = done["timing"]
    assert 0 < timing["first_token"] <= timing["total"]
    assert timing["reused"] is False


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/answer/", "/agent/run/"])
async def test_a_body_that_is_not_json_is_a_400(async_client: Any, path: str) -> None:
    response = await async_client.post(path, "x", content_type="application/json")
    assert response.status_code == 400
    assert response.json() == {"error": "The body is not JSON."}


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/answer/", "/agent/run/"])
async def test_a_post_without_the_token_is_rejected(path: str) -> None:
    response = await AsyncClient(enforce_csrf_checks=True).post(path, "{}", content_type="application/json")
    assert response.status_code == 403


@pytest.mark.usefixtures("demo")
async def test_the_agent_reports_every_call_and_both_totals(
    async_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "CALLS", 3)
    response = await async_client.post("/agent/run/", "{}", content_type="application/json")
    *calls, (name, totals) = parse(await read(response))
    assert name == "done"
    assert [(call["way"], call["number"]) for _, call in calls] == [
        (way, number) for number in (1, 2, 3) for way in ("client", "pool")
    ]
    assert [call["dialed"] for _, call in calls] == [True, True, True, False, True, False]
    for way, total in totals.items():
        assert total == pytest.approx(sum(call["seconds"] for _, call in calls if call["way"] == way))


@pytest.mark.usefixtures("demo")
async def test_an_agent_reports_a_refused_connection(async_client: Any, settings: Any) -> None:
    with refused_port() as port:
        pool = {**settings.LLM_POOL["default"], "BASE_URL": f"http://127.0.0.1:{port}/v1"}
        settings.LLM_POOL = {"default": pool, "far": pool}
        response = await async_client.post("/agent/run/", "{}", content_type="application/json")
        [(name, error)] = parse(await read(response))
    assert name == "error"
    assert error["error"] == "ConnectError"


@pytest.mark.usefixtures("demo")
async def test_an_agent_reports_an_error_status_without_httpx_s_manual_link(
    async_client: Any, settings: Any, serve: Any
) -> None:
    provider = {**settings.LLM_POOL["default"], "BASE_URL": f"{serve(json_reply(status=401)).url}/v1"}
    settings.LLM_POOL = {"default": provider, "far": provider}
    response = await async_client.post("/agent/run/", "{}", content_type="application/json")
    [(name, error)] = parse(await read(response))
    assert (name, error["error"]) == ("error", "HTTPStatusError")
    assert error["message"].endswith(f"for url '{provider['BASE_URL']}/chat/completions'")


@pytest.mark.usefixtures("demo")
async def test_stats_returns_the_pool_s_statistics(async_client: Any) -> None:
    stats = (await async_client.get("/stats/")).json()
    assert stats["in_use"] == 0
    assert {"requests", "opened", "reused", "idle"} <= stats.keys()


@pytest.mark.usefixtures("demo")
async def test_metrics_are_served_for_prometheus(async_client: Any) -> None:
    response = await async_client.get("/metrics")
    assert b"llm_pool_requests_total" in response.content


@pytest.mark.usefixtures("demo")
async def test_counts_redirects_to_the_upstream_and_is_a_404_without_one(
    async_client: Any, settings: Any
) -> None:
    settings.DEMO_COUNTS_URL = "http://127.0.0.1:9/"
    assert (await async_client.get("/counts/")).headers["Location"] == "http://127.0.0.1:9/"
    settings.DEMO_COUNTS_URL = ""
    assert (await async_client.get("/counts/")).status_code == 404
