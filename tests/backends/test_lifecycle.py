"""Drain, close, the end of an event loop, forks and changed settings, on every engine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llm_pool import pools
from llm_pool.engine.loops import portal
from llm_pool.exceptions import PoolClosed, ReadTimeout, WriteTimeout
from testbed.behaviours import json_reply, stop_reading
from tests.backends.conftest import HTTP1, KINDS
from tests.backends.servers import answer, by_path, gated
from tests.fixtures.callers import queue_up, until
from tests.fixtures.forks import child, inodes

UPLOAD = b"x" * 30_000_000  # bytes: more than the kernel buffers if the server reads nothing


async def test_drain_replaces_connections_as_their_calls_end(serve, play, configure):
    """Scenario 51: the call in progress finishes, the next call gets a new connection."""
    server = serve(play(by_path(slow=gated())))
    pool = configure(server)
    await pool.arequest("GET", "/x")
    slow = asyncio.create_task(pool.arequest("GET", "/slow"))
    await server.await_requests(2)
    draining = asyncio.create_task(pool.adrain(5.0))
    assert not await pool.adrain(0.05)
    server.gate("go").open()
    assert (await slow).status_code == 200
    assert await draining
    await server.await_until(lambda s: s.connections_open == 0)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 2


async def test_close_fails_calls_in_the_queue_and_in_progress(serve, play, configure):
    """Scenario 51: they raise PoolClosed, and all connections close."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1})
    active = asyncio.create_task(pool.arequest("GET", "/x"))
    await server.await_requests(1)
    [queued] = await queue_up(pool, pool.arequest("GET", "/x"))
    await pool.aclose()
    for task in (active, queued):
        with pytest.raises(PoolClosed):
            await task
    await server.await_until(lambda s: s.connections_open == 0)
    assert pool.stats().connections == 0
    await pool.aclose()


def test_close_from_a_thread_waits_for_the_connections(server, configure):
    """Scenario 51: ``close`` returns when the connections have closed."""
    pool = configure(server)
    pool.request("GET", "/x")
    pool.close()
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.stats().connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_end_of_the_server_loop_closes_its_connections(serve, play, configure, certificates, scheme):
    """Scenario 53: the pool then serves calls on the portal."""
    server = serve(play(answer), tls=certificates.good if scheme == "https" else None)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})

    async def serve_one():
        portal.adopt_server_loop()
        await asyncio.gather(*(pool.arequest("GET", "/x") for _ in range(3)))

    for _ in range(2):
        asyncio.run(serve_one())
        server.wait_until(lambda s: s.connections_open == 0)
        assert pool.stats().connections == 0
    assert pool.request("GET", "/x").status_code == 200


def test_the_end_of_the_portal_closes_its_connections(server, configure):
    """Scenario 53: the next call gets a new connection."""
    pool = configure(server)
    for accepted in (1, 2):
        assert pool.request("GET", "/x").status_code == 200
        assert server.connections_accepted == accepted
        portal.stop()
        server.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("moment", ["handshake", "answer"])
def test_a_loop_that_ends_during_calls_closes_their_connections(
    serve, play, configure, certificates, scheme, moment
):
    """Scenario 24: at once, without the garbage collector."""
    server = serve(
        play(gated()),
        tls=certificates.good if scheme == "https" else None,
        before_handshake=lambda: server.gate("handshake").passage(),
    )
    if moment == "answer":
        server.gate("handshake").open()
    pool = configure(server, TLS={"ca_file": certificates.ca_file})

    async def begin():
        portal.adopt_server_loop()
        tasks = [asyncio.create_task(pool.arequest("GET", "/x")) for _ in range(3)]
        if moment == "answer":
            await server.await_requests(3)
        else:
            await server.gate("handshake").await_reached(3)
        return tasks

    asyncio.run(begin())
    assert pool.stats().connections == 0
    server.gate("handshake").open()
    server.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("body", "error"), [(b"", ReadTimeout), (UPLOAD, WriteTimeout)])
async def test_a_timed_out_call_closes_its_socket_if_the_server_does_not_read(
    serve, configure, certificates, scheme, body, error
):
    """Scenario 1: the pool has no open socket that it does not count."""
    server = serve(stop_reading(), tls=certificates.good if scheme == "https" else None)
    pool = configure(server, TLS={"ca_file": certificates.ca_file}, TIMEOUTS={"read": 0.2, "write": 0.2})
    with pytest.raises(error):
        await pool.arequest("POST", "/x", content=body)
    await until(lambda: pool.stats().connections == 0 and not client_sockets(server))


def client_sockets(server):
    """Return the inodes of this process's sockets that are connected to the server."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            if not link.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as sock:
                if sock.getpeername()[1] == server.port:
                    found.add(os.fstat(sock.fileno()).st_ino)
        except (OSError, IndexError):  # not connected, or not TCP
            continue
    return found


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_use_the_parents_connections(serve, play, configure, certificates, scheme):
    """Scenario 52: it opens its own, and does not keep the parent's open when the parent closes them."""
    server = serve(play(answer), tls=certificates.good if scheme == "https" else None)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    for _ in range(2):  # the HTTP/2 settings are acknowledged before the second response
        pool.request("GET", "/x")
    parents = client_sockets(server)
    assert len(parents) == 1
    received = server.connections[0].bytes_received

    def work():
        shared = len(inodes() & parents)
        before = pool.stats().connections
        statuses = [pool.request("GET", "/x").status_code for _ in range(2)]
        return [shared, before, statuses, pool.stats().opened]

    with child(work) as forked:
        assert forked.result() == [0, 0, [200, 200], 1]
        assert server.connections[0].bytes_received == received
        assert not server.connections[0].gone
        assert pool.request("GET", "/x").extensions["llm_pool_marks"].reused
        pool.close()
        server.wait_until(lambda s: s.connections[0].gone)
        assert not server.connections[1].gone
    assert server.connections_accepted == 2


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_use_the_parents_connections_of_uvloop(server, configure):
    """Scenario 52: connections on the server loop, under uvloop."""
    uvloop = pytest.importorskip("uvloop")
    pool = configure(server)

    async def main():
        portal.adopt_server_loop()
        await pool.arequest("GET", "/x")
        parents = client_sockets(server)
        assert len(parents) == 1

        def work():
            return [len(inodes() & parents), pool.request("GET", "/x").status_code]

        with child(work) as forked:
            assert await asyncio.to_thread(forked.result) == [0, 200]
            assert (await pool.arequest("GET", "/x")).extensions["llm_pool_marks"].reused
        await pool.aclose()

    uvloop.run(main())
    assert server.connections_accepted == 2


async def test_changed_settings_apply_at_once(serve, play, configure):
    """Scenario 54: and the connections of the old pool close."""
    old, new = serve(play(answer)), serve(play(answer))
    assert (await configure(old).arequest("GET", "/x")).status_code == 200
    assert (await configure(new).arequest("GET", "/x")).status_code == 200
    await old.await_until(lambda s: s.connections_open == 0)
    assert (len(old.requests), len(new.requests)) == (1, 1)


@pytest.mark.kinds(["native-http1"])
def test_the_engine_setting_may_change(serve, configure):
    """Scenario 54: without a restart."""
    server = serve(json_reply())
    for kind in ("native-http1", "aiohttp", "httpcore-http1"):
        pool = configure(server, **KINDS[kind])
        assert pool is pools["default"]
        assert pool.request("GET", "/x").status_code == 200
        server.wait_until(lambda s: s.connections_open == 1)
    assert server.connections_accepted == 3


def test_aiohttp_is_imported_only_if_it_is_chosen():
    """It is an optional dependency."""
    program = "import sys; import llm_pool.backends; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
