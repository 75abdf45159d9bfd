"""The portal cannot start, fails, or does not respond: the call fails clearly, and the next one works."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from llm_pool.engine.loops import host_loop as host_loops
from llm_pool.engine.loops import portal, threads
from llm_pool.exceptions import ConnectFailed, TotalTimeout, TransportFailed
from testbed.behaviours import json_reply
from tests.fixtures.callers import AT_ONCE, gated, in_thread
from tests.fixtures.engine import request_to
from tests.fixtures.forks import child
from tests.fixtures.waiting import becomes_true

NO_THREAD = RuntimeError("can't start new thread")


@pytest.fixture
def server(serve):
    return serve(json_reply())


@pytest.fixture
def impatient(monkeypatch):
    """Shorten the time after which a loop that does not respond is given up."""
    monkeypatch.setattr(host_loops, "PATIENCE", 0.1)


@pytest.fixture
def blocked(engine_pool, server):
    """Block the portal's thread until the end of the test, after a call; return the pool."""
    pool, over = engine_pool(max_connections=1), threading.Event()
    pool.fetch_sync(request_to(server))
    portal.portal().post(over.wait)
    yield pool
    over.set()


def fails_once(monkeypatch, target, name, error):
    """Make the function raise ``error`` at its next call only."""
    function = getattr(target, name)

    def fail(*args, **kwargs):
        monkeypatch.setattr(target, name, function)
        raise error

    monkeypatch.setattr(target, name, fail)


@pytest.mark.parametrize("error", [NO_THREAD, MemoryError()])
def test_without_a_thread_the_call_fails_and_the_next_one_works(server, engine_pool, monkeypatch, error):
    """Scenario 56: ``can't start new thread`` at the first call of a process."""
    pool = engine_pool()
    portal.stop()
    fails_once(monkeypatch, portal, "start_thread", error)
    with pytest.raises(TransportFailed, match="the thread of the pool's connections cannot start"):
        pool.fetch_sync(request_to(server))
    assert pool.fetch_sync(request_to(server)).status == 200


async def run_a_program():
    await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait()


@pytest.mark.parametrize("error", [NO_THREAD, MemoryError()])
def test_one_thread_is_enough(server, engine_pool, monkeypatch, error):
    """Scenario 56: the thread that starts the portal's thread becomes the portal's thread."""
    asyncio.run(run_a_program())  # from then on, asyncio's ``set_event_loop`` makes an object for each thread
    pool = engine_pool()
    portal.stop()
    fails_once(monkeypatch, threads.threading.Thread, "start", error)
    assert pool.fetch_sync(request_to(server)).status == 200
    portal.stop()
    assert pool.fetch_sync(request_to(server)).status == 200


def test_without_a_loop_the_call_fails_and_the_next_one_works(server, engine_pool, monkeypatch):
    """Scenario 56: no file descriptors are left for a moment."""
    pool = engine_pool()
    portal.stop()
    fails_once(monkeypatch, portal, "new_loop", OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    with pytest.raises(TransportFailed, match="cannot start: Too many open files"):
        pool.fetch_sync(request_to(server))
    assert pool.fetch_sync(request_to(server)).status == 200


def test_without_a_thread_for_a_lookup_the_call_fails_and_the_next_one_works(
    server, engine_pool, monkeypatch, fake_dns
):
    """Scenario 56: each lookup needs a thread."""
    fake_dns.names["llm.test"] = "127.0.0.1"
    pool = engine_pool()
    pool.fetch_sync(request_to(server))
    fails_once(monkeypatch, threads, "start_thread", NO_THREAD)
    with pytest.raises(ConnectFailed, match="can't start new thread"):
        pool.fetch_sync(request_to(server, host="llm.test"))
    assert becomes_true(lambda: not pool.stats().waiting)
    assert engine_pool().fetch_sync(request_to(server, host="llm.test")).status == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("caller", ["thread", "loop"])
def test_a_call_ends_if_the_portal_does_not_respond(server, blocked, caller):
    """Scenario 56: without any timeout. The next call uses a new portal, and its slots are free."""
    request = request_to(server, total=None, pool=None, read=None)
    calls = {"thread": blocked.fetch_sync, "loop": lambda request: asyncio.run(blocked.fetch(request))}
    with pytest.raises(TransportFailed, match="has not responded"):
        calls[caller](request)
    assert blocked.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert blocked.stats().connections == 1


@pytest.mark.parametrize("caller", ["thread", "loop"])
def test_a_total_timeout_ends_a_call_though_the_portal_does_not_respond(server, blocked, caller):
    """Scenario 56: before the portal is given up."""
    calls = {"thread": blocked.fetch_sync, "loop": lambda request: asyncio.run(blocked.fetch(request))}
    with pytest.raises(TotalTimeout, match="and the event loop of the pool's connections does not respond"):
        calls[caller](request_to(server, total=0.1))


@pytest.mark.parametrize("caller", ["thread", "loop"])
async def test_a_portal_that_responds_is_kept_however_long_a_call_takes(
    serve, engine_pool, monkeypatch, caller
):
    """Scenario 56: the server is silent, and the read timeout has not ended yet."""
    monkeypatch.setattr(host_loops, "PATIENCE", 0.02)
    checks = []
    check = host_loops.HostLoop._check
    monkeypatch.setattr(
        host_loops.HostLoop, "_check", lambda self, signs: (checks.append(1), check(self, signs))
    )
    server = serve(gated())
    pool = engine_pool()
    call = (
        in_thread(pool.fetch_sync, request_to(server))
        if caller == "thread"
        else pool.fetch(request_to(server))
    )
    task = asyncio.create_task(call)
    assert await asyncio.to_thread(becomes_true, lambda: len(checks) > 5)
    server.gate("go").open()
    assert (await task).status == 200


async def test_a_sync_call_on_the_portals_thread_fails_at_once(server, engine_pool):
    """Scenario 56: it would wait for itself."""
    pool = engine_pool()

    async def call():
        return pool.fetch_sync(request_to(server))

    with pytest.raises(TransportFailed, match="would wait for itself: make it on a thread of its own"):
        await portal.portal().arun(call)
    assert (await pool.fetch(request_to(server))).status == 200


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # asyncio's, of open transports
def test_calls_work_after_the_portals_loop_has_failed(serve, engine_pool, caplog):
    """Scenario 56: the call in progress fails, and the log says why."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    outcome = []

    def call():
        try:
            pool.fetch_sync(request_to(server))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcome.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    server.wait_requests()
    loop = portal.portal().loop

    def fail(_timeout):
        raise OSError(errno.EBADF, "the selector was closed")

    def break_selector():
        loop._selector.select = fail

    portal.portal().post(break_selector)
    caller.join(AT_ONCE)
    assert [type(error).__name__ for error in outcome] == ["PoolClosed"]
    assert becomes_true(lambda: "event loop has failed" in caplog.text)
    server.gate("go").open()
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200


@pytest.mark.forks
def test_calls_work_after_all_descriptors_were_closed(server, engine_pool):
    """Scenario 56: as by ``DaemonContext.open`` in a process whose pool is in use."""
    pool = engine_pool(max_connections=1)

    def work():
        pool.fetch_sync(request_to(server))
        for link in list(Path("/proc/self/fd").iterdir()):
            if int(link.name) > 2 and link.exists() and not link.readlink().name.startswith("pipe:"):
                os.close(int(link.name))  # not the pipes: they carry the result of this function
        return pool.fetch_sync(request_to(server, pool=AT_ONCE)).status

    with child(work) as forked:
        assert forked.result() == 200
