"""Who may look at the status page."""

from __future__ import annotations

from django.http import HttpRequest

from llm_pool.conf.observability import debugging
from llm_pool.engine.config import is_loopback_address

__all__ = ["may_look"]


def may_look(request: HttpRequest) -> bool:
    """Staff. A project without users lets in nobody, but for who works on it: DEBUG, on the machine itself.

    May ask the database who the user is.
    """
    user = getattr(request, "user", None)
    if user is not None:
        return bool(user.is_active and user.is_staff)
    return debugging() and is_loopback_address(request.META.get("REMOTE_ADDR", ""))
