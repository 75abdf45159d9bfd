"""Log handlers that block, hold locks or call the pool do not stop a host loop."""

from __future__ import annotations

import logging
import threading

import pytest

from llm_pool.engine.loops import log_thread
from llm_pool.engine.loops.log_thread import flush
from testbed.behaviours import json_reply
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.engine import request_to
from tests.fixtures.forks import child
from tests.fixtures.loops import each_loop
from tests.fixtures.scripts import run_script
from tests.fixtures.waiting import becomes_true

__all__ = ["each_loop"]

LOGGER = "llm_pool.engine"


class Handler(logging.Handler):
    """Keeps messages and the threads it ran on. Waits for ``go`` before each."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.reached = threading.Event()
        self.go.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.go.wait()
        self.messages.append(record.getMessage())
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def handler():
    """A handler of the root logger; the engine logs at DEBUG."""
    handler, engine = Handler(), logging.getLogger(LOGGER)
    logging.getLogger().addHandler(handler)
    engine.setLevel(logging.DEBUG)
    yield handler
    handler.go.set()
    flush()
    engine.setLevel(logging.NOTSET)
    logging.getLogger().removeHandler(handler)


async def test_calls_go_on_while_a_handler_blocks(serve, engine_pool, each_loop, handler):
    """Scenario 56: the records are kept, in their order, and handled on no event loop's thread."""
    server = serve(json_reply())
    pool = engine_pool()
    handler.go.clear()
    for _ in range(3):
        assert (await pool.fetch(request_to(server, pool=AT_ONCE))).status == 200
        assert await pool.adrain(AT_ONCE)
    assert handler.messages == []
    handler.go.set()
    flush()
    closes = [message for message in handler.messages if "closes a connection" in message]
    assert len(closes) == 3
    assert handler.threads == {"llm_pool-log"}


def test_a_thread_that_holds_a_handlers_lock_can_make_calls(serve, engine_pool, handler):
    """Scenario 56: the handler itself calls the pool."""
    server = serve(json_reply())
    pool = engine_pool()
    with handler.lock:
        pool.fetch_sync(request_to(server))
        assert pool.drain(AT_ONCE)
        assert pool.fetch_sync(request_to(server)).status == 200


def test_records_that_are_too_many_are_dropped_and_counted(serve, engine_pool, handler, monkeypatch):
    """Scenario 56: a handler that blocks does not fill the memory."""
    monkeypatch.setattr(log_thread, "MAX_RECORDS", 2)
    server = serve(json_reply())
    pool = engine_pool()
    handler.go.clear()
    pool.fetch_sync(request_to(server))
    pool.drain(AT_ONCE)
    assert handler.reached.wait(AT_ONCE)
    for _ in range(5):  # two of these wait for the handler
        pool.fetch_sync(request_to(server))
        pool.drain(AT_ONCE)
    handler.go.set()
    flush()
    assert [message for message in handler.messages if "dropped" in message] == [
        "3 log records were dropped: the log handlers are too slow"
    ]


@pytest.mark.forks
def test_a_forked_child_handles_its_own_records_and_not_the_parents(serve, engine_pool, handler):
    """Scenario 56: the parent's records wait for a handler when the process forks."""
    server = serve(json_reply())
    pool = engine_pool()
    pool.fetch_sync(request_to(server))
    handler.go.clear()
    pool.drain(AT_ONCE)
    assert handler.reached.wait(AT_ONCE)

    def work():
        handler.go.set()
        pool.fetch_sync(request_to(server))
        pool.drain(AT_ONCE)
        flush()
        return len(handler.messages)

    with child(work) as forked:
        assert forked.result() == 1
    handler.go.set()
    assert becomes_true(lambda: len(handler.messages) == 1)


CALLER = """
import logging, sys, threading

class CallsThePool(logging.Handler):
    busy = False

    def emit(self, record):
        names.add((record.name, threading.current_thread().name))
        if not CallsThePool.busy and "django" in sys.modules and ready:
            CallsThePool.busy = True
            pools["default"].request("GET", "x")
            CallsThePool.busy = False

names, ready = set(), []
logging.basicConfig(level=logging.DEBUG, handlers=[CallsThePool()])
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["llm_pool"],
    SECRET_KEY="x",
    LOGGING_CONFIG=None,
    LLM_POOL={"default": {"BASE_URL": sys.argv[1], "ENGINE": sys.argv[2], "API_KEY": "k", "PROXY": ""}},
)
django.setup()
from llm_pool import pools

ready.append(True)
for _ in range(3):
    assert pools["default"].request("GET", "x").status_code == 200
    assert pools["default"].drain(5)
from llm_pool.engine.loops.log_thread import flush

flush()
ready.clear()
print(sorted(name for name, thread in names if thread == "llm_pool-portal"))
print("asyncio" in {name for name, thread in names if thread == "llm_pool-log"})
"""


@pytest.mark.forks
@pytest.mark.parametrize("engine", ["native", "httpcore", "aiohttp"])
def test_a_handler_can_call_the_pool(serve, engine):
    """Scenario 56: at DEBUG for all loggers, from the first record of the portal's thread on."""
    server = serve(json_reply())
    assert run_script(CALLER, f"{server.url}/v1", engine) == "[]\nTrue\n"
    assert len(server.requests) > 3


AT_EXIT = """
import logging, sys, time

class Slow(logging.Handler):
    def emit(self, record):
        time.sleep(0.3)  # the exit of the process waits for it
        print(record.getMessage())

logging.getLogger("llm_pool.engine").addHandler(Slow())
logging.getLogger("llm_pool.engine").setLevel(logging.DEBUG)
from llm_pool.engine.loops import portal

portal.portal().post(logging.getLogger("llm_pool.engine").debug, "the last words")
"""


@pytest.mark.forks
def test_records_are_handled_before_the_process_ends():
    """Scenario 56: the process exits right after a record was made."""
    assert run_script(AT_EXIT) == "the last words\n"


NO_THREAD = """
from llm_pool.engine.loops import log_thread

def fail(*_, **__):
    raise RuntimeError("can't create new thread at interpreter shutdown")

log_thread.start_thread = fail
"""


@pytest.mark.forks
def test_the_last_records_are_handled_without_a_thread():
    """Scenario 56: from Python 3.12 on, no thread can be started while the process exits."""
    assert run_script(NO_THREAD + AT_EXIT) == "the last words\n"
