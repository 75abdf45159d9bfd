"""Django's error reports: the debug page, and mails to ADMINS."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.log import AdminEmailHandler
from django.views.debug import get_default_exception_reporter_filter

from llm_pool import pool
from testbed.ports import refused_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.mail import EmailMultiAlternatives
    from django.http import HttpRequest
    from pytest_django.fixtures import SettingsWrapper

# What Django 6.1 wants in the settings does not exist in Django 5.2.
mail_settings_of_django_5 = pytest.mark.filterwarnings(
    "ignore:Django 2028 will not have a default mailer", r"ignore:Using \(name, address\) pairs"
)

PROMPT = "a private" + " question"  # in two parts, because reports show lines of code


def complete(request: HttpRequest) -> HttpResponse:
    pool.complete(PROMPT)
    return HttpResponse()


async def acomplete(request: HttpRequest) -> HttpResponse:
    await pool.acomplete(PROMPT)
    return HttpResponse()


def stream(request: HttpRequest) -> HttpResponse:
    list(pool.stream(PROMPT))
    return HttpResponse()


def call_another_endpoint(request: HttpRequest) -> HttpResponse:
    pool.request("POST", "/embeddings", json={"input": PROMPT})
    return HttpResponse()


VIEWS = (complete, acomplete, stream, call_another_endpoint)
urlpatterns = [path(view.__name__, view) for view in VIEWS]

SECRETS = [
    *("proxy-password", "environment-password", "certificate-password", "value-of-a-header"),
    *("value-of-a-query", "query-of-the-url"),
]


@pytest.fixture(autouse=True)
def site(settings: SettingsWrapper, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A project whose proxy refuses connections, and whose errors are mailed as HTML too."""
    settings.ROOT_URLCONF = __name__
    settings.ADMINS = [("Ada", "ada@example.test")]
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "llm_pool.error_reports.PoolReporterFilter"
    handler = AdminEmailHandler(include_html=True)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    get_default_exception_reporter_filter.cache_clear()
    with refused_port() as port:
        settings.LLM_POOL = {
            "default": {
                "BASE_URL": "http://llm.test/v1?code=query-of-the-url",
                "API_KEY": "",
                "MODEL": "m",
                "PROXY": f"http://user:proxy-password@127.0.0.1:{port}",
                "TLS": {"client_cert": ("/cert.pem", "/key.pem", "certificate-password")},
                "HEADERS": {"X-Gateway": "value-of-a-header"},
                "QUERY": {"code2": "value-of-a-query"},
            }
        }
        yield
    logger.removeHandler(handler)
    get_default_exception_reporter_filter.cache_clear()


@mail_settings_of_django_5
@pytest.mark.parametrize("engine", ["native", "httpcore", "aiohttp"])
@pytest.mark.parametrize("view", [view.__name__ for view in VIEWS])
async def test_no_mail_shows_a_password_a_header_or_a_prompt(
    view: str, engine: str, settings: SettingsWrapper, mailoutbox: list[EmailMultiAlternatives]
) -> None:
    settings.LLM_POOL = {"default": {**settings.LLM_POOL["default"], "ENGINE": engine}}
    response = await AsyncClient(raise_request_exception=False).get(f"/{view}")
    assert response.status_code == 500
    assert len(mailoutbox) == 2  # Django's default LOGGING sends another one, as plain text
    text = "".join(f"{mail.body}{mail.alternatives}" for mail in mailoutbox)
    assert "ConnectFailed" in text
    assert "http://llm.test/v1" in text
    assert [secret for secret in (*SECRETS, PROMPT) if secret in text] == []


@mail_settings_of_django_5
def test_the_debug_page_shows_no_password_no_header_and_no_query(settings: SettingsWrapper) -> None:
    settings.DEBUG = True
    # Under runserver the environment is a part of ``request.META``.
    environment = {"HTTPS_PROXY": "http://user:environment-password@proxy.test"}
    client = Client(raise_request_exception=False, **environment)
    response = client.get("/complete", headers={"Accept": "text/html"})
    assert "ConnectFailed" in response.text
    assert [secret for secret in SECRETS if secret in response.text] == []
    assert PROMPT in response.text  # the local variables are for the developer
