"""The Django app: mocks that are installed before its engine, and a second start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.test import override_settings
from prometheus_client import REGISTRY, generate_latest

from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from testbed import ScriptedServer

SETTINGS = """
import sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llm_pool"],
    LLM_POOL={"default": {"BASE_URL": "http://127.0.0.1:9/v1", "MODEL": "m", "API_KEY": "k"}},
)
"""


def run(program: str) -> str:
    return run_script(SETTINGS + program).strip()


def test_a_mock_installed_before_the_engine_intercepts_calls() -> None:
    program = """
import respx
django.setup()
from llm_pool import pools
answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "mocked"}}]}
with respx.mock as router:
    router.post("http://127.0.0.1:9/v1/chat/completions").respond(json=answer)
    assert "llm_pool.engine.pool" not in sys.modules
    print(pools["default"].complete("Hello"), pools["default"].client.post("chat/completions").status_code)
pools["default"].close()
"""
    assert run(program).splitlines()[-1] == "mocked 200"


def test_a_function_of_atexit_can_make_calls_if_it_is_registered_after_the_start(
    chat_server: ScriptedServer,
) -> None:
    program = f"""
import atexit
sys.modules["prometheus_client"] = None  # the metrics would import the portal
django.setup()
from llm_pool import pools
settings.LLM_POOL["default"]["BASE_URL"] = "{chat_server.url}/v1"
atexit.register(lambda: print(pools["default"].complete("Hi")))
pools["default"].complete("Hi")
"""
    assert run(program) == "Hello!"


def test_the_app_may_be_set_up_again() -> None:
    """A project's tests set up the apps again when they change INSTALLED_APPS."""
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS]):
        assert apps.is_installed("llm_pool")
    metrics = generate_latest(REGISTRY).decode()
    assert metrics.count("# TYPE llm_pool_waiting gauge") == 1
    registry = checks.registry.registry
    for registered in (registry.registered_checks, registry.deployment_checks):
        assert [check.__module__ for check in registered].count("llm_pool.apps") == 1
