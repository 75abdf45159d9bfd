"""Who may look at the status page."""

from __future__ import annotations

from ipaddress import ip_address

from django.http import HttpRequest

from llm_pool.conf.observability import debugging

__all__ = ["may_look"]


def may_look(request: HttpRequest) -> bool:
    """Staff. A project without users lets in nobody, but for who works on it: DEBUG, on the machine itself.

    May ask the database who the user is.
    """
    user = getattr(request, "user", None)
    if user is not None:
        return bool(user.is_active and user.is_staff)
    return debugging() and _is_loopback(request.META.get("REMOTE_ADDR", ""))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
