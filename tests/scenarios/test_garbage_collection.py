"""Streams that the garbage collector closes: on any thread, at any moment, while any lock is held."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from llm_pool.calling.record import observe, unobserve
from llm_pool.engine.loops import portal
from llm_pool.http import event_stream
from llm_pool.status.recorder import recorder
from testbed.behaviours import per_connection
from testbed.chat import chat_completion, chat_stream
from tests.fixtures.engine import until_pool
from tests.fixtures.internals import ledger_of, lock_of, recorder_lock
from tests.fixtures.waiting import becomes_true

AT_ONCE = 5.0


@pytest.fixture
def server(serve):
    """A stream that stops after one token, on the first connection; completions on the others."""
    server = serve(per_connection(chat_stream(["a", "b"], pace="token"), chat_completion()))
    server.gate("token").admit(1)
    return server


def held_open(pool, kind):
    """Return an iterator that holds a stream open, after its first token."""

    def tokens():
        with pool.stream("Hello?") as stream:
            yield from stream

    iterator = tokens() if kind == "a generator" else iter(event_stream(pool.stream("Hello?")))
    next(iterator)
    return iterator


def in_thread(function):
    """Return ``function()``, called in a thread. Fails if it takes longer than ``AT_ONCE``."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(AT_ONCE)
    assert results, "it hangs"
    return results[0]


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # the stream may be collected before the object that closes it
@pytest.mark.parametrize("kind", ["a generator", "an event stream"])
async def test_a_stream_may_be_collected_under_the_lock_of_its_pool(server, pool_to, monkeypatch, kind):
    """Scenario 35: a stream in a reference cycle can be collected at any allocation."""
    pool = pool_to(server)
    ledger = ledger_of(pool.engine)
    arrive = ledger.arrive
    cycle = [await asyncio.to_thread(held_open, pool, kind)]
    cycle.append(cycle)

    def collect_and_arrive(*args):
        gc.collect()  # as can happen at any allocation
        return arrive(*args)

    monkeypatch.setattr(ledger, "arrive", collect_and_arrive)
    del cycle
    completion = await asyncio.to_thread(in_thread, lambda: pool.complete("Hello?"))
    assert completion.text == "Hello!"
    await until_pool(pool.engine, lambda: pool.stats().in_use == 0)
    await until_pool(pool.engine, lambda: pool.stats().first_token.count == 1)  # what was read is counted


@pytest.mark.parametrize(
    "find_lock",
    [lambda pool: lock_of(pool.engine), lambda _: recorder_lock(recorder)],
    ids=["the pool's", "the recorder's"],
)
def test_a_stream_is_closed_though_its_thread_holds_a_lock(server, pool_to, find_lock):
    """Scenario 35: the pool's lock, or the status recorder's."""
    pool = pool_to(server)
    stream = pool.stream("Hello?")
    next(stream)

    def close_under_lock():
        with find_lock(pool):
            stream.close()
            return True

    def attend(_record):
        recorder.attend()

    observe(attend)
    try:
        assert in_thread(close_under_lock)
    finally:
        unobserve(attend)


def test_a_call_that_ends_while_the_portal_is_made_makes_no_second_one(monkeypatch):
    """Scenario 53: the garbage collector may close a stream while the portal's event loop is made."""
    portal.stop()
    make, nested = asyncio.new_event_loop, []

    def collect_and_make():
        if not nested:
            nested.append(None)
            nested[0] = portal.portal()
        return make()

    monkeypatch.setattr(asyncio, "new_event_loop", collect_and_make)
    assert portal.portal() is nested[0] is portal.portal()
    assert becomes_true(
        lambda: [thread.name for thread in threading.enumerate()].count(portal.THREAD_NAME) == 1
    )
