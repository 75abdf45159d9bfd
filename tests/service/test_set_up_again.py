"""Tests of a project may set the apps up anew."""

from __future__ import annotations

from django.apps import apps
from django.conf import settings
from django.test import override_settings
from prometheus_client import REGISTRY, generate_latest


def test_the_app_may_be_set_up_again() -> None:
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS]):
        assert apps.is_installed("llm_pool")
    metrics = generate_latest(REGISTRY).decode()
    assert metrics.count("# TYPE llm_pool_waiting gauge") == 1
