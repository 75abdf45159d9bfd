"""HTTP/2 with real servers: nginx, nghttpd, haproxy, hypercorn, granian and Node.js."""

from __future__ import annotations

import asyncio
import hashlib
import os
from types import SimpleNamespace

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.exchange import HIGH_WATER
from testbed.behaviours import echo as echo_http11
from testbed.echoes import ECHOES
from tests.fixtures.engine import request_to
from tests.fixtures.internals import buffered_bytes_of, entries_of
from tests.scenarios.http2_calls import random_bytes

pytestmark = pytest.mark.server

CALLS = int(os.environ.get("LLM_POOL_TEST_CALLS", "10000"))
"""The number of calls in the load test; the variable can lower it."""
LARGE = 5_000_000


def at(port, scheme="https"):
    """The attributes of a server that ``request_to`` reads."""
    return SimpleNamespace(scheme=scheme, host="127.0.0.1", port=port, authority=f"127.0.0.1:{port}")


@pytest.fixture
def secure_pool(engine_pool, ca_file):
    return lambda **options: engine_pool(tls=TLS(ca_file=ca_file), **options)


async def test_nginx(start_nginx, certificates, secure_pool):
    """Scenarios 41, 44: 41 calls over 2 connections, counted by nginx; 5 MB up, 1 MB down."""
    nginx = start_nginx(size=1_000_000, certificate=certificates.good_files, http2=True)
    server = at(nginx.https_port)
    pool = secure_pool(max_connections=2, pool=30.0)
    answers = await asyncio.gather(*(pool.fetch(request_to(server)) for _ in range(40)))
    assert {answer.body for answer in answers} == {nginx.body}
    assert (await pool.fetch(request_to(server, body=bytes(LARGE)))).body == nginx.body
    assert nginx.counts() == (2, 41)
    exchange = await pool.open(request_to(server))
    assert exchange.http_version == b"HTTP/2"
    exchange.close_threadsafe()


@pytest.mark.parametrize("tls", [True, False])
async def test_nghttpd_with_few_streams(start_nghttpd, certificates, secure_pool, tls):
    """Scenario 41: three streams on each of four connections."""
    body = random_bytes(30_000)
    certificate = certificates.good_files if tls else None
    nghttpd = start_nghttpd(certificate=certificate, options=["-m3"], body=body)
    pool = secure_pool(max_connections=4, http2=True if tls else "prior-knowledge", pool=30.0)
    server = at(nghttpd.port, nghttpd.scheme)
    requests = [request_to(server, b"", method="GET", target="/completion.json") for _ in range(150)]
    answers = await asyncio.gather(*map(pool.fetch, requests))
    assert {(answer.status, answer.body) for answer in answers} == {(200, body)}
    assert pool.stats().opened == 4
    [capacity] = {entry.capacity for entry in entries_of(pool)}
    assert capacity == 3


@pytest.mark.parametrize("options", [(), ("-w10", "-W10"), ("-w20", "-W22")], ids=["64K", "1K", "1M"])
async def test_nghttpd_with_windows_small_and_large(start_nghttpd, certificates, secure_pool, options):
    """Scenario 44: the server sends each upload back, and no byte differs."""
    options = ["--echo-upload", *options]
    nghttpd = start_nghttpd(certificate=certificates.good_files, options=options)
    size = 300_000 if "-w10" in options else LARGE
    bodies = [random_bytes(size, seed) for seed in range(3)]
    server = at(nghttpd.port)
    pool = secure_pool()
    # Get its settings first. nghttpd treats an upload that began before it lowered the window as a violation,
    # if its WINDOW_UPDATE is still queued when our acknowledgement arrives.
    await pool.fetch(request_to(server))
    answers = await asyncio.gather(*(pool.fetch(request_to(server, body=body, read=30.0)) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    assert pool.stats().opened == 1


async def test_haproxy(serve, start_haproxy, certificates, secure_pool):
    """Scenario 41: HTTP/2 in front of an HTTP/1.1 server."""
    haproxy = start_haproxy(serve(echo_http11).port, certificate=certificates.good_files)
    pool = secure_pool(max_connections=2)
    server = at(haproxy.https_port)
    requests = [request_to(server, f"{number}".encode(), target=f"/{number}") for number in range(60)]
    answers = await asyncio.gather(*map(pool.fetch, requests))
    assert all(f'"body": "{number}"'.encode() in answer.body for number, answer in enumerate(answers))
    assert pool.stats().opened <= 2


@pytest.mark.parametrize("name", ECHOES)
async def test_an_echo_is_what_was_sent(start_echo, secure_pool, name):
    """Scenarios 44 to 46: 100 bodies, a large and a streamed one, a slow reader, a closed response."""
    server = at(start_echo(name))
    pool = secure_pool(max_connections=3)
    bodies = [random_bytes(7 * number, number) for number in range(100)]
    answers = await asyncio.gather(*(pool.fetch(request_to(server, body=body)) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    large = random_bytes(LARGE)
    answer = await pool.fetch(request_to(server, body=large))
    assert (answer.body == large, dict(answer.headers)[b"x-version"]) == (True, b"2")
    assert dict(answer.headers)[b"x-digest"] == hashlib.sha256(large).hexdigest().encode()
    streamed = await pool.open(request_to(server, body=None))
    slow = await pool.open(request_to(server, body=large))
    left = await pool.open(request_to(server, body=large))
    left.close_threadsafe()

    async def send():
        for start in range(0, LARGE, 100_000):
            await streamed.write(large[start : start + 100_000])
        await streamed.finish()
        return await streamed.read_all()

    assert (await streamed.host_loop.arun(send)).body == large
    assert buffered_bytes_of(slow) < HIGH_WATER + 1_000_000
    assert (await slow.host_loop.arun(slow.read_all)).body == large
    assert pool.stats().opened <= 3


@pytest.mark.slow
async def test_ten_thousand_calls_at_once_mix_up_no_byte(start_echo, secure_pool):
    """Scenarios 41, 44: 200 at a time over 4 connections, with different bodies, some of 5 MB."""
    server = at(start_echo("granian"))
    pool = secure_pool(max_connections=4, max_streams_per_connection=50, pool=60.0)
    source = random_bytes(LARGE + CALLS)
    left = iter(range(CALLS))

    async def caller():
        for number in left:
            size = LARGE if number % 500 == 250 else number % 4000
            body = source[number : number + size]
            answer = await pool.fetch(request_to(server, body))
            assert answer.status == 200
            assert answer.body == body

    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(caller())
    stats = pool.stats()
    assert (stats.requests, stats.opened, stats.in_use) == (CALLS, 4, 0)
