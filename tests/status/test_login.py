"""A refused user gets a link to the login page. Tested in a separate process, with more installed apps."""

from __future__ import annotations

import json

from tests.fixtures.scripts import run_script

PROGRAM = """
import json, re, sys, django
from django.conf import global_settings, settings
from django.urls import include, path

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.admin", "llm_pool",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    MIDDLEWARE=["tests.status.conftest.LogIn"],
    STATIC_URL="/static/",
    ALLOWED_HOSTS=["testserver"],
)
django.setup()
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.test import Client
from tests.status.conftest import LogIn

places = {"admin": path("admin/", admin.site.urls), "sign-in": path("sign-in/", print, name="sign-in")}
cases, templates = json.loads(sys.argv[1]), sys.argv[2]
if not templates:
    settings.TEMPLATES = []
links = []
for names, login, users, accept in cases:
    settings.ROOT_URLCONF = (path("pools/", include("llm_pool.urls")), *map(places.get, names.split()))
    settings.LOGIN_URL = login or global_settings.LOGIN_URL
    LogIn.user = AnonymousUser() if users else None
    response = Client().get("/pools/?since=1", headers={"Accept": accept})
    assert response.status_code == 403
    assert response["Cache-Control"] == "no-store"
    assert "staff" in response.text
    links.append(" ".join(re.findall('<a href="(.*)">', response.text)))
print(json.dumps(links))
"""
BACK = "?next=/pools/%3Fsince%3D1"
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


LINKS = {
    ("admin", "", "user", HTML): f"/admin/login/{BACK}",
    ("admin sign-in", "sign-in", "user", HTML): f"/sign-in/{BACK}",
    ("sign-in", "/sign-in/", "user", HTML): f"/sign-in/{BACK}",
    ("admin", "/nowhere/", "user", HTML): f"/admin/login/{BACK}",
    ("admin", "no-such-name", "user", HTML): f"/admin/login/{BACK}",
    ("", "https://sso.test/in", "user", HTML): f"https://sso.test/in{BACK}",
    ("", "", "user", HTML): "",
    ("admin", "", "user", "*/*"): "",
    ("admin", "", "", HTML): "",
}
"""URLs, ``LOGIN_URL``, users and ``Accept`` of a request, and the link in its refusal."""


def shown(*cases: tuple[str, ...], templates: str = "templates") -> list[str]:
    return json.loads(run_script(PROGRAM, json.dumps(cases), templates))


def test_the_refusal_links_to_the_projects_login_page() -> None:
    """But not for a program, and not in a project without users."""
    assert dict(zip(LINKS, shown(*LINKS), strict=True)) == LINKS


def test_a_project_without_templates_refuses_without_a_link() -> None:
    assert shown(("", "https://sso.test/in", "user", HTML), templates="") == [""]
