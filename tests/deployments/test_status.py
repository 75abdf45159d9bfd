"""The status page of a server with several workers."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment

pytestmark = [pytest.mark.server, pytest.mark.slow]

WAIT_SECONDS = 30.0
AT_ONCE = 8


def wait_shown(server: Deployment, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Poll the page until ``condition`` of its data holds; its workers write every two seconds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        shown: dict[str, Any] = server.get("/llm-pool/data/")
        if condition(shown):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_the_page_shows_all_workers_and_forgets_one_that_was_killed(
    deploy: Callable[..., Deployment], upstream: ScriptedServer, tmp_path: Path
) -> None:
    extra = {
        "options": "",
        "DJANGO_SETTINGS_MODULE": "tests.deployments.project.watched_settings",
        "CACHE_DIRECTORY": str(tmp_path / "cache"),
        "GUNICORN_CMD_ARGS": "--workers 2",
    }
    server = deploy("gunicorn-gthread", upstream, extra=extra)
    calls = 0
    deadline = time.monotonic() + WAIT_SECONDS
    with ThreadPoolExecutor(AT_ONCE) as users:  # at once: one worker could serve all sequential calls
        while len((shown := server.get("/llm-pool/data/"))["workers"]) < 2:
            list(users.map(server.get, ["/complete"] * AT_ONCE))
            calls += AT_ONCE
            assert time.monotonic() < deadline, shown
    assert shown["scope"] == "machine"
    (pool,) = wait_shown(server, lambda now: [p["now"]["requests"] for p in now["pools"]] == [calls])["pools"]
    assert pool["now"]["max_connections"] == 200
    assert calls == len(upstream.requests)
    killed = shown["workers"][0]["worker"]
    os.kill(killed, signal.SIGKILL)
    wait_shown(server, lambda now: killed not in {each["worker"] for each in now["workers"]})
