"""The Django app: registers the system checks and the metrics."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks

import llm_pool.engine.loops.process  # noqa: F401  its function of ``atexit`` is to run after the project's

__all__ = ["LLMPoolConfig"]


class LLMPoolConfig(AppConfig):
    """Registers the checks and the metrics. ``llm_pool.asgi`` prepares the process's pools and closes them.

    ``ready`` does no I/O, queries no database and runs no async code. Every command of the project runs it,
    so what only some of them need is imported later: by the server, with the first pool, or by the checks.
    """

    name = "llm_pool"
    verbose_name = "LLM pool"

    def ready(self) -> None:
        """Register the system checks; with prometheus_client, also the metrics."""
        checks.register(_check_settings, "llm_pool")
        checks.register(_check_deployment, "llm_pool", checks.Tags.security, deploy=True)
        if find_spec("prometheus_client") is not None:
            from llm_pool import metrics  # noqa: PLC0415  prometheus_client may not be installed

            metrics.install()


def _check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    from llm_pool.checks import check_settings  # noqa: PLC0415  it imports the settings and their providers

    return check_settings(**kwargs)


def _check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    from llm_pool.checks import check_deployment  # noqa: PLC0415

    return check_deployment(**kwargs)
