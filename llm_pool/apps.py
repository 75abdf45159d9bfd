"""The Django app, and what it does when the server starts and stops."""

from __future__ import annotations

import asyncio
import logging
from importlib.util import find_spec

from django.apps import AppConfig

from llm_pool.checks import register_checks
from llm_pool.engine.loops import portal
from llm_pool.registry import pools

__all__ = ["LLMPoolConfig"]

logger = logging.getLogger("llm_pool")

DRAIN_SECONDS = 10.0


class LLMPoolConfig(AppConfig):
    """Opens and closes the process's pools. ``ready`` does no I/O, no database query and nothing async."""

    name = "llm_pool"
    verbose_name = "LLM pool"

    def ready(self) -> None:
        """Register the system checks, the fork handler and the metrics."""
        register_checks()
        portal.after_fork(pools.new_lock)
        if find_spec("prometheus_client") is not None:
            from llm_pool import metrics  # noqa: PLC0415  it may not be installed

            metrics.install()

    async def startup(self) -> None:
        """Make the running loop the server loop, which hosts connections, and prewarm the pools.

        Call it on the server's event loop. Raises ``ImproperlyConfigured`` for invalid settings. It does not
        wait for the provider.
        """
        configured = pools.all()
        portal.adopt_server_loop()
        for pool in configured:
            await pool.aprewarm()

    async def shutdown(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait ``timeout`` seconds for calls to finish, then close all pools.

        Call it on the server's event loop, before the loop ends.
        """
        made = pools.made()
        drained = await asyncio.gather(*(pool.adrain(timeout) for pool in made))
        for pool, in_time in zip(made, drained, strict=True):
            if not in_time:
                logger.warning("pool %r: calls were still running after %s s", pool.alias, timeout)
        await pools.aclose_all()
        portal.release_server_loop()
