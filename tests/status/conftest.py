"""A project with the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

    from django.http import HttpRequest
    from pytest_django.fixtures import SettingsWrapper

TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]


class LogIn:
    """A middleware that sets ``request.user`` to ``user``, as that of django.contrib.auth does."""

    user: SimpleNamespace | None = None

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        if self.user is not None:
            request.user = self.user  # type: ignore[assignment]
        return self._get_response(request)


@pytest.fixture
def project(settings: SettingsWrapper, monkeypatch: pytest.MonkeyPatch) -> type[LogIn]:
    """``project.user = SimpleNamespace(is_active=True, is_staff=True)`` logs a user in."""
    settings.ROOT_URLCONF = "tests.status.urls"
    settings.TEMPLATES = TEMPLATES
    settings.STATIC_URL = "/static/"
    settings.MIDDLEWARE = ["tests.status.conftest.LogIn"]
    monkeypatch.setattr(LogIn, "user", None)
    return LogIn
