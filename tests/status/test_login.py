"""A refused user gets a link to the login page. Tested in a separate process, with more installed apps."""

from __future__ import annotations

import pytest

from tests.fixtures.scripts import run_script

PROGRAM = """
import re, sys, django
from django.conf import settings
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
names, login, users, accept, templates = sys.argv[1:]
if not templates:
    settings.TEMPLATES = []
settings.ROOT_URLCONF = (path("pools/", include("llm_pool.urls")), *map(places.get, names.split()))
if login:
    settings.LOGIN_URL = login
LogIn.user = AnonymousUser() if users else None
response = Client().get("/pools/?since=1", headers={"Accept": accept})
assert response.status_code == 403
assert response["Cache-Control"] == "no-store"
assert "staff" in response.text
print(*re.findall('<a href="(.*)">', response.text))
"""
BACK = "?next=/pools/%3Fsince%3D1"
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


def shown(
    places: str, login: str = "", *, users: str = "yes", accept: str = HTML, templates: str = "yes"
) -> str:
    """The link in the refusal of a project with these URLs (``places``) and this ``LOGIN_URL``."""
    return run_script(PROGRAM, places, login, users, accept, templates).strip()


@pytest.mark.parametrize(
    ("places", "login", "link"),
    [
        ("admin", "", f"/admin/login/{BACK}"),
        ("admin sign-in", "sign-in", f"/sign-in/{BACK}"),
        ("sign-in", "/sign-in/", f"/sign-in/{BACK}"),
        ("admin", "/nowhere/", f"/admin/login/{BACK}"),
        ("admin", "no-such-name", f"/admin/login/{BACK}"),
        ("", "https://sso.test/in", f"https://sso.test/in{BACK}"),
        ("", "", ""),
    ],
)
def test_the_refusal_links_to_the_projects_login_page(places: str, login: str, link: str) -> None:
    assert shown(places, login) == link


def test_a_program_or_a_project_without_users_gets_a_refusal_without_a_link() -> None:
    assert shown("admin", accept="*/*") == ""
    assert shown("admin", users="") == ""


def test_a_project_without_templates_refuses_without_a_link() -> None:
    assert shown("", "https://sso.test/in", templates="") == ""
