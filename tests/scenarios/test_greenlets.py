"""Calls where gevent or eventlet has replaced threads and sockets by greenlets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from testbed.behaviours import EVENTS, JSON
from testbed.chat import chat_event
from tests.deployments.launcher import ROOT

pytestmark = pytest.mark.server
LIMIT = 20.0  # seconds
ANSWER = {"id": "1", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
EXPECTED = {
    "complete": "Hello",
    "query": 1,
    "many at once": [True, 32, 1],
    "stream": "Hello",
    "timed out": [True, True],
    "killed": [True, True, True],
    "async_to_sync": ["Hello", "Hello"],
    "asyncio.run": ["Hello", "Hello"],
    "thread": "Hello",
    "real thread": "Hello",
    "child": "Hello 1",
    "query afterwards": 1,
    "drain": True,
    "after drain": "Hello",
}


async def model(conn):
    """Answer "Hello": to "slow" after the gate has opened, to "never" not at all. ``/go`` opens the gate."""
    request = await conn.read_request()
    if request.target.endswith("/go"):
        conn.server.gate("go").open()
        await conn.respond(200, JSON, b"{}")
        return
    body = json.loads(request.body)
    prompt = body["messages"][-1]["content"]
    if prompt == "slow":
        await conn.wait_for("go")
    if prompt == "never":
        await conn.hold()
    if body.get("stream"):
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        await conn.send_chunk(chat_event({"content": "Hel"}))
        await conn.send_chunk(chat_event({"content": "lo"}))
        await conn.send_last_chunk(chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n")
    else:
        await conn.respond(200, JSON, json.dumps(ANSWER).encode())


@contextmanager
def running(*arguments):
    """Run ``greenlet_program``; yields its results, and lets it end after the block."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.scenarios.greenlet_program", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as program:
        alarm = threading.Timer(LIMIT, program.kill)
        alarm.start()
        try:
            line = program.stdout.readline()
            assert line, program.stderr.read()
            yield json.loads(line)
            program.stdin.close()
            assert program.wait() == 0
        finally:
            alarm.cancel()
            program.kill()


@pytest.mark.parametrize(
    ("engine", "moment"),
    [
        ("native", "first"),
        ("native", "later"),
        ("native", "threads"),
        ("native", "sockets"),
        ("httpcore", "first"),
        ("aiohttp", "first"),
    ],
)
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_calls_let_other_greenlets_run_and_leave_the_database_usable(serve, library, moment, engine):
    """Scenario 56: all or a part was replaced, before the pools were made or after that."""
    server = serve(model)
    settings = {"BASE_URL": f"{server.url}/v1", "LIMITS": {"max_connections": 33}, "ENGINE": engine}
    with running(library, moment, json.dumps(settings)) as results:
        assert results == EXPECTED
        server.wait_until(lambda s: s.connections_open == 0)
    assert server.peak_open <= 34  # the child's connection is one more
