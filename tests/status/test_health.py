"""The health checks."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from llm_pool import pools
from llm_pool.status.health import Readiness
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.test import Client
    from pytest_django.fixtures import SettingsWrapper

    from testbed import ScriptedServer
    from tests.status.conftest import LogIn

WAIT_SECONDS = 5.0


@pytest.mark.parametrize("name", ["live", "ready"])
def test_health_checks_need_no_login_and_show_no_secret(
    client: Client, project: type[LogIn], name: str
) -> None:
    response = client.get(f"/llm-pool/health/{name}/")
    assert response.status_code == 200
    assert response.json()["status"] in {"alive", "ready"}
    assert b"127.0.0.1" not in response.content
    assert b"test-key" not in response.content


def test_a_process_with_invalid_settings_is_alive_but_not_ready(
    client: Client, project: type[LogIn], settings: SettingsWrapper
) -> None:
    settings.LLM_POOL = {"default": {"BASE_URL": "http://secret.example/v1", "TIMEOUTS": {"pol": 1}}}
    response = client.get("/llm-pool/health/ready/")
    assert response.status_code == 503
    assert response.json() == {"status": "unready", "reason": "settings"}
    assert client.get("/llm-pool/health/live/").status_code == 200


def test_a_pool_exhausted_for_longer_than_its_timeout_is_not_ready(
    serve: Callable[..., ScriptedServer], settings: SettingsWrapper
) -> None:
    server = serve(model)
    server.gate("token").open()
    pool = {"BASE_URL": f"{server.url}/v1", "API_KEY": "", "MODEL": "m", "PROXY": ""}
    limits = {"max_connections": 1, "max_keepalive_connections": 1}
    settings.LLM_POOL = {"default": {**pool, "LIMITS": limits, "TIMEOUTS": {"pool": 30.0}}}
    readiness = Readiness()
    with exhausted(server):
        assert readiness.probe(100.0) == {"default": "ready"}
        assert readiness.probe(130.0) == {"default": "ready"}
        assert readiness.probe(130.1) == {"default": "exhausted"}
    assert readiness.probe(131.0) == {"default": "ready"}
    with exhausted(server):
        assert readiness.probe(132.0) == {"default": "ready"}


@contextlib.contextmanager
def exhausted(server: ScriptedServer) -> Iterator[None]:
    """One call has the only connection of the default pool, and another waits for it."""
    pool = pools["default"]
    server.gate("head").shut()
    callers = [threading.Thread(target=lambda: list(pool.stream("hi"))) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (pool.stats().waiting and pool.stats().in_use):  # no event is set when a call waits
            assert time.monotonic() < deadline, pool.stats()
            time.sleep(0.005)
        yield
    finally:
        server.gate("head").open()
        for caller in callers:
            caller.join()
