"""The Django app: what its start imports, and a second start."""

from __future__ import annotations

from django.apps import apps
from django.conf import settings
from django.test import override_settings
from prometheus_client import REGISTRY, generate_latest

from tests.fixtures.scripts import run_script

SETTINGS = """
import sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["llm_pool"],
    LLM_POOL={"default": {"BASE_URL": "http://127.0.0.1:9/v1", "MODEL": "m", "API_KEY": "k"}},
)
"""
HEAVY = (
    "hpack",
    "httpcore",
    "httptools",
    "llm_pool.engine.pool",
    "llm_pool.calling.pool",
    "llm_pool.diagnostics",
)


def run(program: str) -> str:
    return run_script(SETTINGS + program).strip()


def test_a_command_that_calls_no_model_starts_without_the_engine() -> None:
    program = f"""
import httpx
django.setup()
from django.core.management import call_command
from llm_pool import pool, pools
call_command("check", verbosity=0)
assert list(pools) == ["default"] and not pools.made()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run(program).splitlines()[-1] == "[]"


def test_get_asgi_application_imports_all_that_a_pool_needs() -> None:
    program = """
from llm_pool.asgi import get_asgi_application
get_asgi_application()
before = set(sys.modules)
from llm_pool import pools
pools["default"]
new = set(sys.modules) - before
print(sorted(name for name in new if name.startswith(("hpack", "httpcore", "llm_pool"))))
"""
    assert run(program).splitlines()[-1] == "[]"


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


def test_the_app_may_be_set_up_again() -> None:
    """A project's tests set up the apps again when they change INSTALLED_APPS."""
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS]):
        assert apps.is_installed("llm_pool")
    metrics = generate_latest(REGISTRY).decode()
    assert metrics.count("# TYPE llm_pool_waiting gauge") == 1
