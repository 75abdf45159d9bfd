"""The settings beside ``LLM_POOL`` that this app reads: for errors, health checks, headers and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

__all__ = [
    "FLAGS",
    "answers_busy",
    "cleansed",
    "debugging",
    "invalid_flags",
    "latency_buckets",
    "metric_namespace",
    "shows_timing_to_all",
    "unready_when_exhausted",
]

FLAGS = ("LLM_POOL_BUSY_RESPONSES", "LLM_POOL_SERVER_TIMING", "LLM_POOL_UNREADY_WHEN_EXHAUSTED")
"""The settings of this module that are bools."""

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""The default buckets, in seconds. They go higher than django-prometheus's own, which are for web pages."""


def invalid_flags() -> dict[str, Any]:
    """Return the name and value of each of ``FLAGS`` that is set to something other than a bool."""
    values = {name: getattr(settings, name, False) for name in FLAGS}
    return {name: value for name, value in values.items() if not isinstance(value, bool)}


def cleansed(alias: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``LLM_POOL[alias]`` as it is, and as Django's error reports show it in this project."""
    reporter_filter = import_string(settings.DEFAULT_EXCEPTION_REPORTER_FILTER)()
    given = (getattr(settings, "LLM_POOL", None) or {alias: {}})[alias]
    return given, reporter_filter.cleanse_setting(alias, given)


def debugging() -> bool:
    """Return the setting ``DEBUG``."""
    return bool(settings.DEBUG)


@cache
def shows_timing_to_all() -> bool:
    """Return whether all visitors get ``Server-Timing``, and not only staff.

    True if ``LLM_POOL_SERVER_TIMING`` or ``DEBUG`` is set.
    """
    # Cached because it is read for each request, and Django's lookup of a missing setting is slow.
    return debugging() or bool(getattr(settings, "LLM_POOL_SERVER_TIMING", False))


def _setting_changed(*, setting: str, **_: object) -> None:
    if setting in ("DEBUG", "LLM_POOL_SERVER_TIMING"):
        shows_timing_to_all.cache_clear()


setting_changed.connect(_setting_changed, dispatch_uid="llm_pool.conf.observability")


def answers_busy() -> bool:
    """Return the setting ``LLM_POOL_BUSY_RESPONSES``: whether errors of a busy pool or model become a 503."""
    return bool(getattr(settings, "LLM_POOL_BUSY_RESPONSES", True))


def unready_when_exhausted() -> bool:
    """Return the setting ``LLM_POOL_UNREADY_WHEN_EXHAUSTED``: whether an exhausted pool fails readiness."""
    return bool(getattr(settings, "LLM_POOL_UNREADY_WHEN_EXHAUSTED", False))


def metric_namespace() -> str:
    """Return ``PROMETHEUS_METRIC_NAMESPACE``, the prefix of the metrics' names; "" if it is not set."""
    return str(getattr(settings, "PROMETHEUS_METRIC_NAMESPACE", "") or "")


def latency_buckets() -> Sequence[float]:
    """Return ``PROMETHEUS_LATENCY_BUCKETS``, or ``BUCKETS`` if it is not set.

    These are the upper limits of the buckets for the durations of calls, in seconds.
    """
    return tuple(getattr(settings, "PROMETHEUS_LATENCY_BUCKETS", BUCKETS))
