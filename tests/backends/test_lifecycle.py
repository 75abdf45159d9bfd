"""A pool's life is the same on every engine: drain, close, forks, loops that end, settings that change."""

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
from llm_pool.exceptions import PoolClosed
from testbed.behaviours import json_reply
from tests.backends.conftest import KINDS
from tests.backends.servers import answer, gated, told
from tests.fixtures.callers import queue_up
from tests.fixtures.forks import child, inodes


async def test_drain_replaces_connections_as_they_come_back(serve, play, configure):
    """Scenario 51: the call in flight finishes, the next has a new connection."""
    server = serve(play(told(slow=gated())))
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


async def test_close_fails_who_waits_and_who_is_served(serve, play, configure):
    """Scenario 51: with a clear error, and nothing hangs; no connection is left."""
    server = serve(play(gated()))
    pool = configure(server, LIMITS={"max_connections": 1})
    served = asyncio.create_task(pool.arequest("GET", "/x"))
    await server.await_requests(1)
    [waits] = await queue_up(pool, pool.arequest("GET", "/x"))
    await pool.aclose()
    for task in (served, waits):
        with pytest.raises(PoolClosed):
            await task
    await server.await_until(lambda s: s.connections_open == 0)
    assert pool.stats().connections == 0
    await pool.aclose()


def test_a_thread_closes_too(server, configure):
    """Scenario 51: it returns when the connections have closed."""
    pool = configure(server)
    pool.request("GET", "/x")
    pool.close()
    server.wait_until(lambda s: s.connections_open == 0)
    assert pool.stats().connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_end_of_the_server_loop_ends_its_connections(serve, play, configure, certificates, scheme):
    """Scenario 53: the pool goes on with those of the portal, and nothing is left of the loop's."""
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


def test_the_end_of_the_portal_ends_its_connections(server, configure):
    """Scenario 53: the next caller has a new one."""
    pool = configure(server)
    for accepted in (1, 2):
        assert pool.request("GET", "/x").status_code == 200
        assert server.connections_accepted == accepted
        portal.stop()
        server.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("moment", ["handshake", "answer"])
def test_a_loop_that_ends_in_the_middle_of_calls_frees_them(
    serve, play, configure, certificates, scheme, moment
):
    """Scenario 24: the server sees the connections go, and nothing of them is left for the garbage."""
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


def client_sockets(server):
    """Inodes of this process's sockets that are connected to the server."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            if not link.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as sock:
                if sock.getpeername()[1] == server.port:
                    found.add(os.fstat(sock.fileno()).st_ino)
        except (OSError, IndexError):  # not connected, or not by TCP
            continue
    return found


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parent_and_child_share_no_connection(serve, play, configure, certificates, scheme):
    """Scenario 52: each works on its own; what the parent closes is closed though the child lives."""
    server = serve(play(answer), tls=certificates.good if scheme == "https" else None)
    pool = configure(server, TLS={"ca_file": certificates.ca_file})
    for _ in range(2):  # by the second answer the settings of HTTP/2 have been acknowledged too
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
def test_uvloops_connections_stay_the_parents_too(server, configure):
    """Scenario 52: the server loop's, under uvloop."""
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


async def test_new_settings_hold_at_once(serve, play, configure):
    """Scenario 54: and the connections of the old ones are gone."""
    old, new = serve(play(answer)), serve(play(answer))
    assert (await configure(old).arequest("GET", "/x")).status_code == 200
    assert (await configure(new).arequest("GET", "/x")).status_code == 200
    await old.await_until(lambda s: s.connections_open == 0)
    assert (len(old.requests), len(new.requests)) == (1, 1)


@pytest.mark.kinds(["native-http1"])
def test_the_engine_itself_may_change(serve, configure):
    """Scenario 54: from any to any other, without a restart."""
    server = serve(json_reply())
    for kind in ("native-http1", "aiohttp", "httpcore-http1"):
        pool = configure(server, **KINDS[kind])
        assert pool is pools["default"]
        assert pool.request("GET", "/x").status_code == 200
        server.wait_until(lambda s: s.connections_open == 1)
    assert server.connections_accepted == 3


def test_nothing_of_aiohttp_is_needed_where_it_is_not_chosen():
    """It is an extra; httpx is there in any case."""
    program = "import sys; import llm_pool.backends; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
