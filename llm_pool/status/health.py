"""Whether this process is to be sent requests: for load balancers, and without secrets."""

from __future__ import annotations

import time

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import load
from llm_pool.engine.pool import Pool
from llm_pool.registry import pools

__all__ = ["Readiness", "readiness"]


class Readiness:
    """Remembers since when each pool has been found exhausted, from one look to the next.

    A pool is exhausted while all its connections are in use and callers wait. Where every look for longer
    than its pool timeout has found it so, its callers fail, and requests are better sent elsewhere. A dead
    provider is no reason: no other process would fare better. Neither is a closed pool: its next use makes
    another.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[Pool, float]] = {}

    def look(self, now: float) -> dict[str, str]:
        """Aliases with "ready" or "exhausted". Raises ``ImproperlyConfigured`` for impossible settings."""
        load()
        return {pool.alias: self._look_at(pool.alias, pool.engine, now) for pool in pools.made()}

    def _look_at(self, alias: str, engine: Pool, now: float) -> str:
        stats = engine.stats()
        if stats.utilization < 1.0 or not stats.waiting:
            self._since.pop(alias, None)
            return "ready"
        known, since = self._since.get(alias, (engine, now))
        if known is not engine:
            since = now
        self._since[alias] = (engine, since)
        timeout = engine.config.timeouts.pool
        return "exhausted" if timeout is not None and now - since > timeout else "ready"


_readiness = Readiness()


def readiness() -> tuple[int, dict[str, object]]:
    """The status and body of the answer to a probe."""
    try:
        states = _readiness.look(time.monotonic())
    except ImproperlyConfigured:
        return 503, {"status": "unready", "reason": "settings"}
    if "exhausted" in states.values():
        return 503, {"status": "unready", "reason": "exhausted", "pools": states}
    return 200, {"status": "ready", "pools": states}
