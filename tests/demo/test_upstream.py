"""The demo's model server and its proxies: simulated model, relay, counting proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from demo_project.upstream import simulated
from demo_project.upstream.counting_proxy import Counts, counting_proxy, serve_counts
from demo_project.upstream.relay import relay
from demo_project.upstream.tcp_server import tcp_server
from testbed.behaviours import close, json_reply, steps
from testbed.ports import refused_port
from tests.fixtures.callers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


ROUND_TRIP = 0.05  # seconds
QUESTION = {"role": "user", "content": "Why is the sky blue?"}


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
    # A timer may fire early by the clock's resolution, and late on a busy machine.
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
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_server(close) as port, relay("127.0.0.1", port, ROUND_TRIP) as far_port:
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
