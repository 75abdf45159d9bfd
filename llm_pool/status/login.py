"""Where who may not look can log in."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

from django.apps import apps
from django.http import HttpRequest
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve

__all__ = ["login_url"]

PLACES = (None, "admin:login")  # ``LOGIN_URL``, or else the admin's


def login_url(request: HttpRequest) -> str | None:
    """The first place for it that the project has, which leads back here; None where there is none."""
    if not hasattr(request, "user") or not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.views import redirect_to_login  # noqa: PLC0415 - only where its models are

    for place in PLACES:
        with suppress(NoReverseMatch, Resolver404):
            url = redirect_to_login(request.get_full_path(), place).url
            _check(url)
            return url
    return None


def _check(url: str) -> None:
    """Raises ``Resolver404`` for one of this site that leads nowhere, as that of Django's default may."""
    parts = urlsplit(url)
    if not parts.netloc:
        resolve("/" + parts.path.removeprefix(get_script_prefix()))
