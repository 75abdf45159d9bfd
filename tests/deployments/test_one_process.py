"""One process: all kinds of calls at once, and a script without a server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.deployments.launcher import ROOT
from tests.deployments.raw_client import RawClient
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment

pytestmark = pytest.mark.server


def test_concurrent_streams_and_calls_release_every_connection(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 53: an ASGI server's loop and its threads share one pool."""
    server = deploy("uvicorn", upstream)
    gate = upstream.gate("token")
    gate.shut()
    with RawClient(server.port, "/stream") as one, RawClient(server.port, "/astream") as other:
        gate.wait_reached(2)
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(server.get, ["/complete", "/acomplete"] * 10))
        assert len(answers) == 20
        assert server.get("/stats")["in_use"] == 2  # both streams were open during the calls
        gate.open()
        for client in (one, other):
            client.read_through(b"event: done")
    stats = server.wait_stats(in_use=0, waiting=0, dialing=0)
    assert stats["requests"] == 22
    assert stats["opened"] == upstream.connections_accepted <= 2 + 2 * 4  # the streams; 4 callers on 2 loops
    assert stats["reused"] >= 22 - stats["opened"]
    assert stats["idle"] == stats["connections"] == upstream.connections_open


def test_a_blocking_call_in_an_async_view_holds_up_the_loop_and_is_answered(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 53: the portal serves a call that blocks the server loop."""
    server = deploy("uvicorn", upstream)
    for _ in range(3):
        assert server.get("/complete-on-the-loop?prompt=now")["text"] == "You said now."
    assert upstream.connections_accepted == 1


SCRIPT = """
import asyncio, django
django.setup()
from llm_pool import pools
for _ in range(100):
    assert asyncio.run(pools["default"].acomplete("hello")).text == "You said hello."
"""


def test_a_hundred_event_loops_in_a_script_use_a_handful_of_connections(upstream: ScriptedServer) -> None:
    """Scenario 53: connections outlive ``asyncio.run``."""
    pool = {"BASE_URL": f"{upstream.url}/v1", "API_KEY": "test-key", "MODEL": "m", "PROXY": ""}
    env = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.deployments.project.settings",
        "LLM_POOL": json.dumps(pool),
        "MIDDLEWARE": "[]",
    }
    run_script(SCRIPT, env=env)
    assert len(upstream.requests) == 100
    assert upstream.connections_accepted <= 2
