"""The views in a project whose every view needs a login, a transaction and the cache middlewares.

Tested in a separate process, with the databases and apps of such a project. No database can be opened.
"""

from __future__ import annotations

import pytest

from tests.fixtures.scripts import run_script

PROGRAM = """
import asyncio, sys, django
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
method, url = sys.argv[1:]
for _ in range(2):
    print(getattr(Client(), method)(url).status_code)
print(asyncio.run(getattr(AsyncClient(), method)(url)).status_code)
settings.LLM_POOL = {"default": {"TIMEOUTS": {"pol": 1}}}
print(getattr(Client(), method)(url).status_code)
"""


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize(("name", "broken"), [("live", "200"), ("ready", "503")])
def test_health_checks_need_neither_a_login_nor_a_database_and_are_not_cached(
    name: str, method: str, broken: str
) -> None:
    """The last answer is that of a process whose settings have become invalid."""
    answers = run_script(PROGRAM, method, f"/llm-pool/health/{name}/").split()
    assert answers == ["200", "200", "200", broken]


@pytest.mark.parametrize("path", ["", "data/", "events/"])
def test_the_page_has_its_own_access_rule(path: str) -> None:
    assert set(run_script(PROGRAM, "get", f"/llm-pool/{path}").split()) == {"403"}
