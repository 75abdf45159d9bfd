"""Lookups by aiodns. The cache above it is tested in test_dns.py."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from operator import gt
from pathlib import Path
from socket import EAI_AGAIN, EAI_NONAME, gaierror
from unittest.mock import Mock

import pycares
import pytest

from llm_pool.diagnostics.advice import NO_NAME, NO_RESOLVER
from llm_pool.engine.config import DNS
from llm_pool.engine.dialer.resolver import Resolver
from llm_pool.exceptions import DNSFailed
from testbed import Gate
from testbed.behaviours import json_reply
from testbed.board import WAIT_SECONDS
from testbed.nameserver import NO_SUCH_NAME, REFUSED, SERVER_FAILED
from tests.fixtures.engine import request_to
from tests.fixtures.forks import child
from tests.fixtures.internals import advice_of
from tests.fixtures.scripts import run_script


@pytest.fixture
def resolver():
    return Resolver(DNS(resolver="aiodns"))


@pytest.fixture
def pool(engine_pool):
    return engine_pool(resolver="aiodns")


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to count in")

UNKNOWN = "Name or service not known"
FAILURES = {
    "no such name": (NO_SUCH_NAME, EAI_NONAME, UNKNOWN),
    "no address": ([], EAI_NONAME, UNKNOWN),
    "a server that fails": (SERVER_FAILED, EAI_AGAIN, "DNS server returned general failure"),
    "a server that refuses": (REFUSED, EAI_AGAIN, "DNS server refused query"),
}


@pytest.mark.parametrize(("answer", "number", "words"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_is_of_the_same_kind_as_the_systems(name_server, resolver, answer, number, words):
    """Scenario 47: an unknown name and a failing server get different advice from llmpool_check."""
    name_server.names["llm.test"] = answer
    with pytest.raises(DNSFailed, match=rf"^the name 'llm.test' has no address: .*{words}\)?$") as caught:
        await resolver.resolve("llm.test", 80)
    cause = caught.value.__cause__
    assert (type(cause), cause.errno) == (gaierror, number)
    assert (cause.__traceback__, cause.__cause__.__traceback__) == (None, None)  # the cache keeps the errors
    assert advice_of(caught.value, "dns") is (NO_RESOLVER if number == EAI_AGAIN else NO_NAME)


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "Could not contact DNS servers"), (None, "Timeout while contacting DNS servers")],
    ids=["a server that is down", "a server that is silent"],
)
async def test_no_answer_at_all_is_a_temporary_failure(name_server, resolver, address, words):
    """Scenario 47: the lookup ends even if its caller sets no timeout."""
    name_server.names["llm.test"] = None
    name_server.address = address or name_server.address
    name_server.timeout = 0.05
    with pytest.raises(DNSFailed, match=rf"Temporary failure in name resolution \({words}\)$") as caught:
        await resolver.resolve("llm.test", 80)
    assert advice_of(caught.value, "dns") is NO_RESOLVER


async def test_ipv4_and_ipv6_are_asked_for_at_once(serve, name_server, pool):
    """Scenario 47: one lookup asks for both families, and the call reaches the server on ::1."""
    server = serve(json_reply(), host="::1")
    name_server.names["llm.test"] = ["127.0.0.1", "::1"]
    assert (await pool.fetch(request_to(server, host="llm.test"))).status == 200
    assert sorted(name_server.questions) == [("llm.test", "A"), ("llm.test", "AAAA")]


async def test_nothing_beneath_the_cache_keeps_an_answer(name_server, resolver):
    """Scenario 47: after ``forget`` the name is queried again, even within the record's TTL of an hour."""
    name_server.names["llm.test"] = "127.0.0.1"
    await resolver.resolve("llm.test", 80)
    resolver.forget("llm.test", 80)
    name_server.names["llm.test"] = "127.0.0.2"
    assert (await resolver.resolve("llm.test", 80))[0][4] == ("127.0.0.2", 80)


async def test_names_of_this_machine_are_in_its_file(name_server, resolver):
    """Scenario 47: localhost is found in /etc/hosts."""
    assert {info[4][0] for info in await resolver.resolve("localhost", 80)} <= {"127.0.0.1", "::1"}
    assert name_server.questions == []


async def test_lookups_work_without_inotify_watches(name_server, resolver, monkeypatch):
    """Scenario 47: lookups work without a watch on /etc/resolv.conf; Linux allows a user 128 of these."""
    make = pycares.Channel

    def channel(**options):
        if "sock_state_cb" not in options:
            raise pycares.AresError("Failed to initialize c-ares channel")
        return make(**options)

    monkeypatch.setattr(pycares, "Channel", channel)
    name_server.names["llm.test"] = "127.0.0.1"
    assert (await resolver.resolve("llm.test", 80))[0][4] == ("127.0.0.1", 80)


@pytest.mark.parametrize(
    "error", [pycares.AresError("out of memory"), RuntimeError("can't start new thread")]
)
async def test_a_resolver_that_cannot_be_made_is_a_temporary_failure(
    name_server, resolver, monkeypatch, error
):
    """Scenario 47: any other exception would make each later lookup of the name fail."""
    monkeypatch.setattr(pycares, "Channel", Mock(side_effect=error))
    with pytest.raises(DNSFailed, match=rf"Temporary failure in name resolution \({error}\)$"):
        await resolver.resolve("llm.test", 80)


def files_and_threads():
    """Return how many open files the process has, and how many threads, including those of C code."""
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def assert_settles_at(before):
    """Poll until the process has no more files and threads than ``before``; pycares has no event for it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while any(map(gt, files_and_threads(), before)):
        assert time.monotonic() < deadline, f"files and threads: {before}, and now {files_and_threads()}"
        time.sleep(0.005)


@needs_proc
async def test_a_lookup_leaves_nothing_behind(name_server, resolver):
    """Scenario 47: no file and no thread is left, whether or not the caller was cancelled."""
    names = [f"{number}.test" for number in range(20)]
    name_server.names.update(dict.fromkeys(names, "127.0.0.1"))
    name_server.gate = Gate()
    pycares._shutdown_manager.start()  # its thread runs on, so it must be counted in ``before``
    before = files_and_threads()
    lookups = [asyncio.create_task(resolver.resolve(name, 80)) for name in names]
    await name_server.gate.await_reached(len(names))
    for asker in lookups[:10]:
        asker.cancel()
    assert all(map(gt, files_and_threads(), before))
    name_server.gate.open()
    await asyncio.gather(*lookups, return_exceptions=True)
    assert_settles_at(before)


@needs_proc
@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("under_way", [False, True], ids=["after a look-up", "during one"])
def test_the_child_of_a_fork_looks_up_for_itself_and_leaves_nothing(serve, name_server, pool, under_way):
    """Scenario 52: the child starts a pycares thread, and does not wait for the parent's query."""
    server = serve(json_reply())
    name_server.names.update({"llm.test": "127.0.0.1", "parent.test": "127.0.0.1"})
    pool.fetch_sync(request_to(server, host="parent.test"))
    resolver = Resolver(DNS(resolver="aiodns", ttl=0))

    async def look_up(count):
        return [(await resolver.resolve("llm.test", 80))[0][4][0] for _ in range(count)]

    def work():
        first = asyncio.run(look_up(1))
        before = files_and_threads()
        more = asyncio.run(look_up(5))
        assert_settles_at(before)
        return first + more, pool.fetch_sync(request_to(server, host="llm.test")).status

    gate = name_server.gate = Gate() if under_way else None
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(pool.fetch_sync, request_to(server, host="llm.test")) if gate else None
        if gate:
            gate.wait_reached()
            name_server.gate = None
        with child(work) as forked:
            assert forked.result() == [["127.0.0.1"] * 6, 200]
        if gate:
            gate.open()
            assert asking.result().status == 200


@pytest.mark.forks
def test_a_process_ends_in_silence_in_the_middle_of_a_lookup(name_server):
    """Scenario 53: after the caller's timeout, the exit does not wait for a silent name server."""
    program = f"""
import asyncio, time
from functools import partial
import aiodns
aiodns.DNSResolver = partial(aiodns.DNSResolver, [{name_server.address!r}], timeout=600)
from llm_pool.engine.config import DNS
from llm_pool.engine.dialer.resolver import Resolver

async def main():
    await asyncio.wait_for(Resolver(DNS(resolver="aiodns")).resolve("llm.test", 80), 0.5)

try:
    asyncio.run(main())
except TimeoutError:
    print("gave up")
"""
    name_server.names["llm.test"] = None
    assert run_script(program) == "gave up\n"
    name_server.wait(lambda: name_server.queries, "the question has come")
    assert name_server.queries == ["llm.test"]
