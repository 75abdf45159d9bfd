"""Decides which requests can see the status page, and finds the URL of the login page."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

from django.apps import apps
from django.http import HttpRequest
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve

from llm_pool.conf.observability import debugging
from llm_pool.engine.config import is_loopback_address

__all__ = ["login_url", "may_see_page"]

# What proxies add to a request. A proxy's address can be a loopback address, and its client's is not.
FORWARDED = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP")
LOGIN_PAGES = (None, "admin:login")  # ``LOGIN_URL``, then the admin's login page


def may_see_page(request: HttpRequest) -> bool:
    """Return whether the request can see the status page: its user is active and staff.

    In a project without users (``request`` has no ``user``) the page is visible only under ``DEBUG``, and
    only from a loopback address and not through a proxy. Can query the database, to load the user.
    """
    user = getattr(request, "user", None)
    if user is not None:
        return bool(user.is_active and user.is_staff)
    if not debugging() or any(name in request.META for name in FORWARDED):
        return False
    return is_loopback_address(request.META.get("REMOTE_ADDR", ""))


def login_url(request: HttpRequest) -> str | None:
    """Return the URL of the login page, with the path of ``request`` as ``next``.

    Returns None if the project has no users or no login page.
    """
    if not hasattr(request, "user") or not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.views import redirect_to_login  # noqa: PLC0415 - it imports models

    for page in LOGIN_PAGES:
        with suppress(NoReverseMatch, Resolver404):
            url = redirect_to_login(request.get_full_path(), page).url
            _resolve(url)
            return url
    return None


def _resolve(url: str) -> None:
    """Raise ``Resolver404`` if ``url`` is a path of this site and has no view.

    Django's default LOGIN_URL, for example, has a view only if the project gives it one.
    """
    parts = urlsplit(url)
    if not parts.netloc:
        resolve("/" + parts.path.removeprefix(get_script_prefix()))
