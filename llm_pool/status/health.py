"""Whether this process is ready for requests. For load balancers; no answer holds a secret."""

from __future__ import annotations

import time

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import load
from llm_pool.engine.pool import Pool
from llm_pool.registry import pools

__all__ = ["Readiness", "readiness"]


class Readiness:
    """Keeps, from probe to probe, since when each pool has been saturated.

    A pool is saturated while all its connections are in use and callers wait. It is exhausted if every probe
    for longer than its pool timeout has found it saturated: its callers fail then, and another process may
    serve the requests. A provider that is down does not matter, because no other process would reach it.
    A closed pool does not matter either: its next use makes a new one.
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
    """Status and body of the answer to a readiness probe."""
    try:
        states = _readiness.probe(time.monotonic())
    except ImproperlyConfigured:
        return 503, {"status": "unready", "reason": "settings"}
    if "exhausted" in states.values():
        return 503, {"status": "unready", "reason": "exhausted", "pools": states}
    return 200, {"status": "ready", "pools": states}
