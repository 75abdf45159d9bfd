"""What a start imports. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_pool.providers import PROVIDERS
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from testbed import ScriptedServer

SETUP = """
import asyncio, sys
import django, django.core.management, httpx
from django.conf import settings

pool = {"BASE_URL": sys.argv[1], "MODEL": "m", "API_KEY": "k", "PROXY": "", "TIMEOUTS": {"total": 20.0}}
settings.configure(INSTALLED_APPS=["llm_pool"], LLM_POOL={"default": pool})
if sys.argv[2:] != ["metrics"]:
    sys.modules["prometheus_client"] = None  # as if it were not installed
before = set(sys.modules)
"""
START = """
django.setup()
from llm_pool import pool, pools
"""
CHECK = """
django.core.management.call_command("check", verbosity=0)
"""
PRINT_IMPORTED = """
print(*(set(sys.modules) - before))
"""
NOWHERE = "http://127.0.0.1:9"
NEEDED = {"anthropic": {"max_tokens": 5}}

OF_CALLS = {"h2", "hpack", "httpcore", "httptools", "aiohttp", "pydantic",
            "llm_pool.calling.pool", "llm_pool.diagnostics", "llm_pool.engine.pool",
            "llm_pool.engine.ledger"}  # fmt: skip
OF_SETTINGS = {"llm_pool.checks", "llm_pool.conf.settings", "llm_pool.engine.request", "llm_pool.exceptions",
               "llm_pool.providers", "llm_pool.transports"}  # fmt: skip
OF_OTHER_PROVIDERS = {"llm_pool.providers.anthropic", "llm_pool.providers.azure"}


def imported(program: str, url: str = NOWHERE, *options: str) -> set[str]:
    """Return the names of the modules that ``program`` imports after ``SETUP``."""
    return set(run_script(SETUP + program + PRINT_IMPORTED, url, *options).splitlines()[-1].split())


def of_package(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "llm_pool"}


def test_a_command_imports_neither_engine_nor_settings() -> None:
    names = imported(START)
    assert names & (OF_CALLS | OF_SETTINGS | OF_OTHER_PROVIDERS) == set()
    assert len(of_package(names)) <= 9, names


def test_the_checks_import_the_settings_and_their_provider_only() -> None:
    names = imported(START + CHECK)
    assert names & (OF_CALLS | OF_OTHER_PROVIDERS) == set()
    assert names > {"llm_pool.checks", "llm_pool.providers.openai"}
    assert len(of_package(names)) <= 62, names


def test_the_metrics_import_neither_engine_nor_settings() -> None:
    names = imported(START, NOWHERE, "metrics")
    assert "llm_pool.metrics" in names
    assert names & (OF_CALLS | OF_SETTINGS | OF_OTHER_PROVIDERS) == {"llm_pool.exceptions"}
    assert len(of_package(names)) <= 30, names


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_asgi_server_imports_before_its_loop_runs_all_that_a_call_needs(
    chat_server: ScriptedServer, provider: str
) -> None:
    """An import on the loop would stop all requests for as long as it takes."""
    program = f"""
pool.update(PROVIDER={provider!r}, QUERY={{"api-version": "1"}})
import llm_pool.asgi
llm_pool.asgi.get_asgi_application()
import contextlib
from llm_pool.exceptions import LLMPoolError
before = set(sys.modules)

async def call():
    from llm_pool import pools
    with contextlib.suppress(LLMPoolError):  # the server's answer is not one of all APIs
        await pools["default"].acomplete("Hi", **{NEEDED.get(provider, {})})
    await pools["default"].aclose()

asyncio.run(call())
"""
    assert imported(program, chat_server.url) == set()
    assert chat_server.connections_accepted == 1
