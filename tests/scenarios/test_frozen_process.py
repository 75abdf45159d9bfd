"""A process is stopped between two calls, as a suspended machine or container is, and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from testbed.behaviours import close, hold, json_reply, mark, per_connection, send, steps
from testbed.behaviours import until as until_gate

PROGRAM = """
import asyncio, sys
import django
from django.conf import settings

url, way = sys.argv[1:]
pool = {"BASE_URL": url, "API_KEY": "", "MODEL": "m", "PROXY": ""}
settings.configure(INSTALLED_APPS=["llm_pool"], LLM_POOL={"default": pool})
django.setup()
from llm_pool import pools

def wait():
    print("has called", flush=True)
    sys.stdin.readline()

async def on_the_server_loop():
    from llm_pool.engine.loops.portal import adopt_server_loop
    adopt_server_loop()
    print((await pools["default"].arequest("POST", "x", content=b"{}")).text, flush=True)
    wait()  # in the same step of the loop as the start of the next call
    print((await pools["default"].arequest("POST", "x", content=b"{}")).text, flush=True)

def in_a_thread():
    from llm_pool.engine.loops.portal import portal
    print(pools["default"].request("POST", "x", content=b"{}").text, flush=True)
    portal().post(wait)
    print(pools["default"].request("POST", "x", content=b"{}").text, flush=True)

asyncio.run(on_the_server_loop()) if way == "server loop" else in_a_thread()
"""

SECOND = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"call": -1}'


@pytest.mark.parametrize("act", [close, send(SECOND)], ids=["a close", "a second response"])
@pytest.mark.parametrize("way", ["server loop", "thread"])
def test_a_stopped_process_gets_its_own_answer(serve, act, way):
    """Scenario 55: what the server did meanwhile costs no call, and answers none."""
    first = steps(json_reply({"call": 1}), until_gate("act"), act, mark("acted"), hold)
    server = serve(per_connection(first, json_reply({"call": 2})))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, way],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == '{"call": 1}\n'
            assert process.stdout.readline() == "has called\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            server.gate("act").open()
            server.wait_mark("acted")
            process.send_signal(signal.SIGCONT)
            assert process.communicate("\n", timeout=20)[0] == '{"call": 2}\n'
        finally:
            process.kill()
    assert [request.connection for request in server.requests] == [0, 1]
