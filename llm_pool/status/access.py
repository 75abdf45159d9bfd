"""Access to the status page: which requests may see it, and where to log in."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

from django.apps import apps
from django.http import HttpRequest
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve

from llm_pool.conf.observability import debugging
from llm_pool.engine.config import is_loopback_address

__all__ = ["login_url", "may_see_page"]

LOGIN_PAGES = (None, "admin:login")  # ``LOGIN_URL`` first, then the admin's


def may_see_page(request: HttpRequest) -> bool:
    """True for staff; without users, for DEBUG from a loopback address only. May query the database."""
    user = getattr(request, "user", None)
    if user is not None:
        return bool(user.is_active and user.is_staff)
    return debugging() and is_loopback_address(request.META.get("REMOTE_ADDR", ""))


def login_url(request: HttpRequest) -> str | None:
    """The URL of the project's login page, with ``next`` set to this page; None if the project has none."""
    if not hasattr(request, "user") or not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.views import redirect_to_login  # noqa: PLC0415 - it imports that app's models

    for page in LOGIN_PAGES:
        with suppress(NoReverseMatch, Resolver404):
            url = redirect_to_login(request.get_full_path(), page).url
            _resolve(url)
            return url
    return None


def _resolve(url: str) -> None:
    """Raise ``Resolver404`` for a path of this site without a view, as Django's default LOGIN_URL may be."""
    parts = urlsplit(url)
    if not parts.netloc:
        resolve("/" + parts.path.removeprefix(get_script_prefix()))
