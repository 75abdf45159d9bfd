"""The settings beside ``LLM_POOL`` that say who sees what of the pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from django.conf import settings
from django.core.signals import setting_changed

__all__ = ["debugging", "latency_buckets", "metric_namespace", "shows_timing_to_all"]

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds. Models take longer than web pages, for which django-prometheus's own default is made."""


def debugging() -> bool:
    """``DEBUG``."""
    return bool(settings.DEBUG)


@cache
def shows_timing_to_all() -> bool:
    """``LLM_POOL_SERVER_TIMING``, or else ``DEBUG``: whether anyone may see where a request's time went."""
    # Django finds a setting that is not there only after a long search, and this is asked for each request.
    return debugging() or bool(getattr(settings, "LLM_POOL_SERVER_TIMING", False))


def _setting_changed(*, setting: str, **_: object) -> None:
    if setting in ("DEBUG", "LLM_POOL_SERVER_TIMING"):
        shows_timing_to_all.cache_clear()


setting_changed.connect(_setting_changed, dispatch_uid="llm_pool.conf.observability")


def metric_namespace() -> str:
    """``PROMETHEUS_METRIC_NAMESPACE``: what the names of metrics begin with; "" for nothing."""
    return str(getattr(settings, "PROMETHEUS_METRIC_NAMESPACE", "") or "")


def latency_buckets() -> Sequence[float]:
    """``PROMETHEUS_LATENCY_BUCKETS``: the upper bounds of all histograms of durations, in seconds."""
    return tuple(getattr(settings, "PROMETHEUS_LATENCY_BUCKETS", BUCKETS))
