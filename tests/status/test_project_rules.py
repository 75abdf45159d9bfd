"""The views in a project whose every view needs a login, a transaction and the cache middlewares.

Tested in a separate process, with the databases and apps of such a project. No database can be opened.
"""

from __future__ import annotations

import json

import pytest

from tests.fixtures.scripts import run_script

PROGRAM = """
import asyncio, json, sys, django
from django.conf import settings
from django.urls import include, path

settings.configure(
    SECRET_KEY="tests",
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "llm_pool",
    ],
    DATABASES={
        alias: {
            "ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/database", "ATOMIC_REQUESTS": True,
        }
        for alias in ("default", "other")
    },
    MIDDLEWARE=[
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ],
    STATIC_URL="/static/",
    ALLOWED_HOSTS=["testserver"],
)
django.setup()
from django.test import AsyncClient, Client

settings.ROOT_URLCONF = (path("llm-pool/", include("llm_pool.urls")),)
statuses = {request: [] for request in sys.argv[1:]}


def send(client):
    for request, found in statuses.items():
        method, url = request.split()
        found.append(getattr(client, method)(url).status_code)


async def asend(client):
    for request, found in statuses.items():
        method, url = request.split()
        found.append((await getattr(client, method)(url)).status_code)


send(Client())
send(Client())
asyncio.run(asend(AsyncClient()))
settings.LLM_POOL = {"default": {"TIMEOUTS": {"pol": 1}}}
send(Client())
print(json.dumps(statuses))
"""
HEALTH = {
    f"{method} /llm-pool/health/{name}/": [200, 200, 200, broken]
    for method in ("get", "head")
    for name, broken in (("live", 200), ("ready", 503))
}
PAGE = {f"get /llm-pool/{path}": [403, 403, 403, 403] for path in ("", "data/", "events/")}


@pytest.fixture(scope="module")
def statuses() -> dict[str, list[int]]:
    """The statuses of each request: twice, by an async client, and when the settings have become invalid."""
    return json.loads(run_script(PROGRAM, *HEALTH, *PAGE))


@pytest.mark.parametrize("request_line", HEALTH)
def test_health_checks_need_neither_a_login_nor_a_database_and_are_not_cached(
    statuses: dict[str, list[int]], request_line: str
) -> None:
    assert statuses[request_line] == HEALTH[request_line]


@pytest.mark.parametrize("request_line", PAGE)
def test_the_page_has_its_own_access_rule(statuses: dict[str, list[int]], request_line: str) -> None:
    assert statuses[request_line] == PAGE[request_line]
