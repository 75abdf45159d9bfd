"""The Django app: prepares the pools when an ASGI server starts, and closes them when it stops."""

from __future__ import annotations

import asyncio
import logging
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks

import llm_pool.engine.loops.process  # noqa: F401  its function of ``atexit`` is to run after the project's
from llm_pool.registry import pools

__all__ = ["LLMPoolConfig"]

logger = logging.getLogger("llm_pool")

DRAIN_SECONDS = 10.0


class LLMPoolConfig(AppConfig):
    """Registers the checks and the metrics. Under ASGI, prepares the process's pools and closes them.

    ``llm_pool.asgi`` calls ``startup`` and ``shutdown``. ``ready`` does no I/O, queries no database and runs
    no async code. Every command of the project runs it, so what only some of them need is imported later: by
    the server, with the first pool, or by the checks.
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

    async def startup(self, *, adopt_loop: bool = True) -> None:
        """Make the running event loop the server loop, which hosts connections. Make and prewarm all pools.

        Call ``startup`` on the event loop of the ASGI server. If that loop does not last as long as the
        process, pass ``adopt_loop=False``: the portal then hosts the connections. Returns before the
        connections are open. Raises ``ImproperlyConfigured`` for invalid settings.
        """
        from llm_pool.engine.loops import portal  # noqa: PLC0415  see the class

        configured = pools.all()
        if adopt_loop:
            portal.adopt_server_loop()
        for pool in configured:
            await pool.aprewarm()

    async def shutdown(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait at most ``timeout`` seconds until the calls in progress have ended, then close all pools.

        If calls take longer, log a warning; these calls fail with PoolClosed. Call ``shutdown`` on the event
        loop of the ASGI server, before that loop ends.
        """
        from llm_pool.engine.loops import portal  # noqa: PLC0415

        made = pools.made()
        drained = await asyncio.gather(*(pool.adrain(timeout) for pool in made))
        for pool, in_time in zip(made, drained, strict=True):
            if not in_time:
                logger.warning("pool %r: calls were still running after %s s", pool.alias, timeout)
        await pools.aclose_all()
        portal.release_server_loop()


def _check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    from llm_pool.checks import check_settings  # noqa: PLC0415  it imports the settings and their providers

    return check_settings(**kwargs)


def _check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    from llm_pool.checks import check_deployment  # noqa: PLC0415

    return check_deployment(**kwargs)
