"""The readiness check of this process, for load balancers. Its answers contain no secret."""

from __future__ import annotations

import time

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import load
from llm_pool.engine.pool import Pool
from llm_pool.registry import pools

__all__ = ["Readiness", "readiness"]


class Readiness:
    """Finds pools that are exhausted. Records for each pool since when all probes have found it saturated.

    A pool is saturated if all its connections are in use and callers wait. It is exhausted if all probes have
    found it saturated for longer than its pool timeout. Then its callers fail, and another process could
    serve them. A pool whose provider is down is ready, because no other process would reach the provider
    either. A closed pool is ready, because its next use makes a new pool.
    """

    def __init__(self) -> None:
        self._saturated: dict[str, tuple[Pool, float]] = {}  # since when, in monotonic seconds

    def probe(self, now: float) -> dict[str, str]:
        """Return "ready" or "exhausted" for each alias. ``now`` is in monotonic seconds.

        Raises ``ImproperlyConfigured`` for invalid settings.
        """
        load()
        return {pool.alias: self._state(pool.alias, pool.engine, now) for pool in pools.made()}

    def _state(self, alias: str, engine: Pool, now: float) -> str:
        stats = engine.stats()
        if stats.utilization < 1.0 or not stats.waiting:
            self._saturated.pop(alias, None)
            return "ready"
        known, since = self._saturated.get(alias, (engine, now))
        if known is not engine:
            since = now
        self._saturated[alias] = (engine, since)
        timeout = engine.config.timeouts.pool
        return "exhausted" if timeout is not None and now - since > timeout else "ready"


_readiness = Readiness()


def readiness() -> tuple[int, dict[str, object]]:
    """Return the HTTP status and the body that answer a readiness probe."""
    try:
        states = _readiness.probe(time.monotonic())
    except ImproperlyConfigured:
        return 503, {"status": "unready", "reason": "settings"}
    if "exhausted" in states.values():
        return 503, {"status": "unready", "reason": "exhausted", "pools": states}
    return 200, {"status": "ready", "pools": states}
