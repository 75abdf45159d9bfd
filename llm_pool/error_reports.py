"""Keeps passwords, prompts and answers out of Django's error reports: its debug page, and mails to ADMINS."""

from __future__ import annotations

import re
from collections.abc import ItemsView
from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

__all__ = ["PoolReporterFilter"]

PACKAGES = ("llm_pool", "httpx")  # ``LLMPool.request`` passes the prompt to httpx


class PoolReporterFilter(SafeExceptionReporterFilter):
    """Hides the secrets of this package in Django's error reports, besides what Django hides.

    Hides HEADERS, QUERY, PROXY, the query of BASE_URL and the client certificate in ``LLM_POOL``, and proxies
    and queries of URLs from the environment. If ``DEBUG`` is off, hides the local variables of the frames of
    ``PACKAGES`` too: they hold prompts and answers.

    To use it, set ``DEFAULT_EXCEPTION_REPORTER_FILTER`` to "llm_pool.error_reports.PoolReporterFilter".
    """

    hidden_settings = re.compile(
        rf"{SafeExceptionReporterFilter.hidden_settings.pattern}|^HEADERS$|^QUERY$|^client_cert$|(^|_)PROXY$",
        re.IGNORECASE,
    )

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        """Return ``value``, the value of a setting, with stars in place of its secrets."""
        cleansed = super().cleanse_setting(key, value)
        if isinstance(cleansed, str) and str(key).upper().endswith(("BASE_URL", "ENDPOINT")):
            url, mark, _ = cleansed.partition("?")
            return f"{url}?{self.cleansed_substitute}" if mark else cleansed
        return cleansed

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> ItemsView[str, Any]:
        """Return the name and the value of each local variable, with stars in place of hidden values."""
        package = str(tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package in PACKAGES and self.is_active(request):
            return dict.fromkeys(tb_frame.f_locals, self.cleansed_substitute).items()
        return super().get_traceback_frame_variables(request, tb_frame)
