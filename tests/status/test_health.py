"""The health checks."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from llm_pool import pools
from llm_pool.status.health import Readiness, readiness
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


@pytest.fixture
def server(serve: Callable[..., ScriptedServer], settings: SettingsWrapper) -> ScriptedServer:
    """The server of the default pool, which has one connection."""
    server = serve(model)
    server.gate("token").open()
    pool = {"BASE_URL": f"{server.url}/v1", "API_KEY": "", "MODEL": "m", "PROXY": ""}
    limits = {"max_connections": 1, "max_keepalive_connections": 1}
    settings.LLM_POOL = {"default": {**pool, "LIMITS": limits, "TIMEOUTS": {"pool": 30.0}}}
    return server


def test_a_pool_is_exhausted_if_it_is_full_for_longer_than_its_timeout(server: ScriptedServer) -> None:
    readiness = Readiness()
    with exhausted(server):
        assert readiness.probe(100.0) == {"default": "ready"}
        assert readiness.probe(130.0) == {"default": "ready"}
        assert readiness.probe(130.1) == {"default": "exhausted"}
    assert readiness.probe(131.0) == {"default": "ready"}
    with exhausted(server):
        assert readiness.probe(132.0) == {"default": "ready"}


@pytest.mark.parametrize(("setting", "status"), [(None, 200), (False, 200), (True, 503)])
def test_an_exhausted_process_is_unready_only_if_the_setting_says_so(
    server: ScriptedServer,
    settings: SettingsWrapper,
    monkeypatch: pytest.MonkeyPatch,
    setting: bool | None,
    status: int,
) -> None:
    """Its other pages need no model, and a load balancer would take them down as well."""
    if setting is not None:
        settings.LLM_POOL_UNREADY_WHEN_EXHAUSTED = setting
    probe = Readiness.probe
    with exhausted(server):
        assert readiness() == (200, {"status": "ready", "pools": {"default": "ready"}})
        monkeypatch.setattr(Readiness, "probe", lambda self, now: probe(self, now + 60.0))
        code, body = readiness()
    assert (code, body["status"]) == (status, "ready" if status == 200 else "unready")
    assert body["pools"] == {"default": "exhausted"}


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
