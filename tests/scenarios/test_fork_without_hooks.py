"""A process forks without the functions of ``os.register_at_fork``: uWSGI, Windows, other programs in C."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.loops import portal
from llm_pool.exceptions import PoolClosed
from testbed.behaviours import json_reply
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.engine import request_to
from tests.fixtures.forks import child, fork_without_hooks, inodes
from tests.fixtures.internals import sockets_of
from tests.fixtures.scripts import run_script

pytestmark = pytest.mark.forks


@pytest.fixture(params=["http", "https"])
def server(request, serve, certificates):
    return serve(json_reply(), tls=certificates.good if request.param == "https" else None)


@pytest.fixture
def pool(engine_pool, certificates):
    return engine_pool(tls=TLS(ca_file=certificates.ca_file))


CALLS = {
    "sync": lambda pool, request: pool.fetch_sync(request),
    "async": lambda pool, request: asyncio.run(pool.fetch(request)),
    "after stats": lambda pool, request: (pool.stats(), pool.fetch_sync(request))[1],
}


@pytest.mark.parametrize("way", CALLS)
def test_the_child_makes_its_own_connection(server, pool, way):
    """Scenario 56: it neither writes to the parent's connection nor closes it."""
    request = request_to(server)
    pool.fetch_sync(request)
    parents = inodes(sockets_of(pool))

    def work():
        whole = CALLS[way](pool, request)
        shared = len(inodes() & parents)
        return [whole.status, whole.marks.reused, shared, pool.stats().opened]

    with child(work, fork_without_hooks) as forked:
        assert forked.result() == [200, False, 0, 1]
        accepted = server.connections_accepted
        assert pool.fetch_sync(request).marks.reused
    assert pool.fetch_sync(request).marks.reused
    assert server.connections_accepted == accepted > 1


def test_the_threads_of_the_child_forget_the_parent_once(server, pool):
    """Scenario 56: the first calls of a worker come on several threads; each gets its response."""
    request = request_to(server)
    pool.fetch_sync(request)

    def work():
        together, statuses = threading.Barrier(8), []

        def call():
            together.wait()
            statuses.append(pool.fetch_sync(request_to(server, pool=AT_ONCE)).status)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = pool.stats()
        return [statuses, stats.requests, stats.in_use]

    with child(work, fork_without_hooks) as forked:
        assert forked.result() == [[200] * 8, 8, 0]


def test_a_response_in_progress_stays_the_parents(server, pool):
    """Scenario 56: in the child, reading it raises PoolClosed."""
    exchange = pool.open_sync(request_to(server))

    def work():
        with pytest.raises(PoolClosed):
            exchange.host_loop.run(exchange.read)
        exchange.close_threadsafe()
        return pool.fetch_sync(request_to(server)).status

    with child(work, fork_without_hooks) as forked:
        assert forked.result() == 200
    assert exchange.host_loop.run(exchange.read_all).status == 200


async def test_the_server_loop_stays_the_parents(server, pool):
    """Scenario 56: a child that was forked on the loop's thread uses a portal of its own."""
    portal.adopt_server_loop()
    try:
        await pool.fetch(request_to(server))
        with child(lambda: pool.fetch_sync(request_to(server)).marks.reused, fork_without_hooks) as forked:
            assert await asyncio.to_thread(forked.result) is False
        assert (await pool.fetch(request_to(server))).marks.reused
    finally:
        portal.release_server_loop()


ELSEWHERE = """
import asyncio, os, signal, socket, sys

for module in ("grp", "pwd", "trio"):  # httpcore imports trio, which needs some of the names below
    sys.modules[module] = None  # its import raises ImportError
for name in ("fork", "forkpty", "getuid", "register_at_fork", "setsid", "uname"):
    delattr(os, name)
for name in ("MSG_DONTWAIT", "TCP_KEEPIDLE"):
    delattr(socket, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "setitimer"):
    delattr(signal, name)
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["llm_pool"],
    SECRET_KEY="x",
    LLM_POOL={
        alias: {"BASE_URL": sys.argv[1], "API_KEY": "k", "MODEL": "m", "PROXY": "", "UDS": uds}
        for alias, uds in {"default": None, "uds": "/tmp/llm.sock"}.items()
    },
)
django.setup()
from llm_pool import pools

pool = pools["default"]
pool.check(timeout=5)
print(pool.request("GET", "x").status_code)
del socket.AF_UNIX  # not before: asyncio may use a Unix socket when it makes a loop
pool.drain(5)
print(pool.request("GET", "x").status_code)
try:
    pools["uds"].request("GET", "x")
except Exception as error:
    print(error)
"""


def test_calls_work_without_the_names_that_only_unix_has(serve):
    """Scenario 56: on Windows Python has no ``os.register_at_fork`` and no Unix sockets."""
    server = serve(json_reply())
    first, second, uds = run_script(ELSEWHERE, f"{server.url}/v1").splitlines()
    assert (first, second) == ("200", "200")
    assert uds == "UDS /tmp/llm.sock: Python has no Unix sockets on this system; use BASE_URL alone"
