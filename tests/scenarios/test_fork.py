"""After a fork, parent and child share no socket, and calls work in both."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import threading

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.loops import portal
from llm_pool.exceptions import PoolClosed
from testbed import Gate
from testbed.behaviours import JSON, json_reply
from testbed.ports import unanswering_port
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.forks import child, inodes
from tests.fixtures.internals import locks_of, portal_is_started, sockets_of
from tests.fixtures.waiting import becomes_true

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # these tests fork with threads


@pytest.fixture(params=["http", "https"])
def server(request, serve, certificates):
    return serve(json_reply(), tls=certificates.good if request.param == "https" else None)


@pytest.fixture
def pool(engine_pool, certificates):
    return engine_pool(tls=TLS(ca_file=certificates.ca_file))


def report_and_call(pool, request, parents):
    """Return a function for the child: it counts what is left of the parent, and makes a call (``ANEW``)."""

    def work():
        before = {
            "total": pool.stats().connections + pool.stats().waiting,
            "opened": pool.stats().opened,
            "portal": portal_is_started(),
            "threads": len(threading.enumerate()),
            "shared": len(inodes() & parents),
        }
        return before | {"status": pool.fetch_sync(request).status, "now": pool.stats().connections}

    return work


ANEW = {"total": 0, "opened": 0, "portal": False, "threads": 1, "shared": 0, "status": 200, "now": 1}


def test_an_idle_connection_stays_the_parents(server, pool):
    """Scenario 52: the child dials its own; it neither writes to the parent's nor closes it."""
    request = request_to(server)
    pool.fetch_sync(request)
    received = server.connections[0].bytes_received
    parents = inodes(sockets_of(pool))
    assert len(parents) == 1
    with child(report_and_call(pool, request, parents)) as forked:
        assert forked.result() == ANEW
        assert server.connections_accepted == 2
        assert (server.connections[0].bytes_received, server.connections[0].gone) == (received, False)
        assert pool.fetch_sync(request).marks.reused
    server.wait_until(lambda s: s.connections_open == 1)
    assert pool.fetch_sync(request).marks.reused
    assert server.connections_accepted == 2
    assert [request.connection for request in server.requests] == [0, 1, 0, 0]


def test_what_the_parent_closes_is_closed_though_the_child_lives(server, pool):
    """Scenario 52: a copy of the socket left open in the child would keep the connection open."""
    pool.fetch_sync(request_to(server))
    with child(lambda: None) as forked:
        forked.result()
        pool.close()
        server.wait_until(lambda s: s.connections_open == 0)


def test_a_response_in_progress_stays_the_parents(serve, pool, certificates):
    """Scenario 52: the parent reads on; in the child, reading the response raises PoolClosed."""

    async def halves(conn):
        request = await conn.read_request()
        if request.target == "/whole":
            await conn.respond(200, JSON, b"{}")
            return
        await conn.send_head(200, {"Content-Length": "8"})
        await conn.send(b"half")
        await conn.wait_for("go")
        await conn.send(b"half")

    server = serve(halves, tls=certificates.good)
    exchange = pool.open_sync(request_to(server))
    assert exchange.host_loop.run(exchange.read) == b"half"
    parents = inodes(sockets_of(pool))

    def work():
        with pytest.raises(PoolClosed, match="event loop of these connections has ended"):
            exchange.host_loop.run(exchange.read)
        exchange.close_threadsafe()
        return report_and_call(pool, request_to(server, target="/whole"), parents)()

    with child(work) as forked:
        assert forked.result() == ANEW
        assert not server.connections[0].gone
        server.gate("go").open()
        assert exchange.host_loop.run(exchange.read) == b"half"
        assert exchange.host_loop.run(exchange.read) == b""
    assert pool.fetch_sync(request_to(server, target="/whole")).marks.reused


def test_a_dial_in_progress_stays_the_parents(serve, pool, certificates):
    """Scenario 52: in the middle of a TLS handshake."""
    gate = Gate()
    server = serve(json_reply(), tls=certificates.good, before_handshake=gate.passage)
    other = serve(json_reply())
    with _calling(pool, request_to(server)) as outcome:
        gate.wait_reached()
        parents = inodes(sockets_of(pool))
        assert len(parents) == 1
        with child(report_and_call(pool, request_to(other), parents)) as forked:
            assert forked.result() == ANEW
            gate.open()
            server.wait_requests()
    assert outcome[0].status == 200
    assert server.connections_accepted == server.handshakes == 1


def test_a_connect_in_progress_stays_the_parents(serve, pool):
    """Scenario 52: in the middle of TCP connect."""
    other = serve(json_reply())
    with unanswering_port() as port:
        request = request_to(other, connect=30.0)
        request.origin = request.origin._replace(port=port)
        with _calling(pool, request) as outcome:
            assert becomes_true(lambda: sockets_of(pool))
            parents = inodes(sockets_of(pool))
            assert len(parents) == 1
            with child(report_and_call(pool, request_to(other), parents)) as forked:
                assert forked.result() == ANEW
            assert (inodes(sockets_of(pool)), pool.stats().dialing) == (parents, 1)
            pool.close()
    assert isinstance(outcome[0], PoolClosed)


def test_a_lookup_in_progress_stays_the_parents(serve, pool, fake_dns):
    """Scenario 52: its thread does not exist in the child, which does its own lookup."""
    server = serve(json_reply())
    fake_dns.names["llm.test"] = "127.0.0.1"
    fake_dns.gate = gate = Gate()
    request = request_to(server, host="llm.test")

    def work():
        fake_dns.gate = None
        return report_and_call(pool, request, set())()

    with _calling(pool, request) as outcome:
        gate.wait_reached()
        with child(work) as forked:
            assert forked.result() == ANEW
            gate.open()
    assert outcome[0].status == 200
    assert server.connections_accepted == 2


@contextlib.contextmanager
def _calling(pool, request):
    """Make a call in a thread during the block. After the block, the list has its result or its error."""
    outcome = []

    def call():
        try:
            outcome.append(pool.fetch_sync(request))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join()


def test_locks_that_others_held_are_open_in_the_child(server, pool):
    """Scenario 52: another thread holds every lock of the pool when the process forks."""
    request = request_to(server)
    pool.fetch_sync(request)
    parents = inodes(sockets_of(pool))
    host_loop = portal.portal()
    held, over = threading.Event(), threading.Event()

    def hold():
        with contextlib.ExitStack() as locks:
            for lock in locks_of(pool):
                locks.enter_context(lock)
            held.set()
            over.wait()

    def work():
        with pytest.raises(PoolClosed):
            host_loop.post(print)
        return report_and_call(pool, request, parents)()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        with child(work) as forked:
            assert forked.result() == ANEW
    finally:
        over.set()
        thread.join()
    assert pool.fetch_sync(request).marks.reused


def test_a_child_of_a_child_makes_its_own_connections(server, pool):
    """Scenario 52: as under a server that loads the application, forks, and forks again."""
    request = request_to(server)
    pool.fetch_sync(request)
    parents = inodes(sockets_of(pool))

    def work():
        own = report_and_call(pool, request, parents)()
        with child(report_and_call(pool, request, parents | inodes(sockets_of(pool)))) as grandchild:
            return [own, grandchild.result(), pool.fetch_sync(request).marks.reused]

    with child(work) as forked:
        assert forked.result() == [ANEW, ANEW, True]
    assert pool.fetch_sync(request).marks.reused


def test_a_pool_that_was_closed_is_closed_in_the_child(server, pool):
    """Scenario 52: a fork does not open it again."""
    pool.fetch_sync(request_to(server))
    pool.close()

    def work():
        with pytest.raises(PoolClosed):
            pool.fetch_sync(request_to(server))
        return pool.closed

    with child(work) as forked:
        assert forked.result() is True
    assert server.connections_accepted == 1


def test_children_of_multiprocessing_call_for_themselves(server, pool):
    """Scenario 52: with the start method "fork", in each child process."""
    request = request_to(server)
    pool.fetch_sync(request)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def work():
        whole = pool.fetch_sync(request)
        queue.put((whole.status, whole.marks.reused, os.getpid()))

    children = [context.Process(target=work) for _ in range(2)]
    for each in children:
        each.start()
    reports = [queue.get() for _ in children]
    for each in children:
        each.join()
        assert each.exitcode == 0
        each.close()
    queue.close()
    assert [(status, reused) for status, reused, _ in reports] == [(200, False)] * 2
    assert pool.fetch_sync(request).marks.reused
    assert server.connections_accepted == 3


@pytest.mark.parametrize("fork_on", ["the loop", "another thread"])
async def test_the_server_loops_connections_stay_the_parents(server, pool, fork_on):
    """Scenario 52: the server loop hosts the connections; the child uses its own portal and new loops."""
    portal.adopt_server_loop()
    try:
        request = request_to(server)
        await pool.fetch(request)
        parents = inodes(sockets_of(pool))
        assert len(parents) == 1

        def work():
            reports = report_and_call(pool, request, parents)()
            return reports, asyncio.run(pool.fetch(request)).marks.reused

        async with _child(work, fork_on) as forked:
            assert await asyncio.to_thread(forked.result) == [ANEW, True]
            assert not server.connections[0].gone
            assert (await pool.fetch(request)).marks.reused
        assert (await pool.fetch(request)).marks.reused
        assert server.connections_accepted == 2
    finally:
        portal.release_server_loop()


@contextlib.asynccontextmanager
async def _child(work, fork_on):
    """``child``, forked on the loop's thread or on another."""
    context = child(work)
    forked = context.__enter__() if fork_on == "the loop" else await asyncio.to_thread(context.__enter__)
    try:
        yield forked
    finally:
        context.__exit__(None, None, None)


async def test_both_loops_are_forgotten_in_the_child(server, pool):
    """Scenario 52: one connection on the server loop and one on the portal."""
    portal.adopt_server_loop()
    try:
        request = request_to(server)
        await pool.fetch(request)
        await asyncio.to_thread(pool.fetch_sync, request)
        await until_pool(pool, lambda: pool.stats().idle == 2)
        parents = inodes(sockets_of(pool))
        assert len(parents) == 2
        with child(report_and_call(pool, request, parents)) as forked:
            assert await asyncio.to_thread(forked.result) == ANEW
            assert [connection.gone for connection in server.connections[:2]] == [False, False]
        assert (await pool.fetch(request)).marks.reused
        assert (await asyncio.to_thread(pool.fetch_sync, request)).marks.reused
        assert server.connections_accepted == 3
    finally:
        portal.release_server_loop()


def test_uvloops_sockets_stay_the_parents(server, pool):
    """Scenario 52: its transports keep a socket open after ``socket.close``."""
    uvloop = pytest.importorskip("uvloop")

    async def main():
        portal.adopt_server_loop()
        request = request_to(server)
        await pool.fetch(request)
        parents = inodes(sockets_of(pool))
        assert len(parents) == 1
        with child(report_and_call(pool, request, parents)) as forked:
            assert await asyncio.to_thread(forked.result) == ANEW
            assert (await pool.fetch(request)).marks.reused
        assert (await pool.fetch(request)).marks.reused
        await pool.aclose()

    uvloop.run(main())
    assert server.connections_accepted == 2
