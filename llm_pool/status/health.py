"""The readiness check of this process, for load balancers. The responses contain no secrets."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf.observability import unready_when_exhausted
from llm_pool.conf.settings import load
from llm_pool.engine.clock import monotonic
from llm_pool.engine.pool import Pool
from llm_pool.registry import pools

__all__ = ["Readiness", "readiness"]


class Readiness:
    """Finds pools that are exhausted.

    A pool is *saturated* if ``max_connections`` connections are in use and callers wait. A pool is
    *exhausted* if it was saturated at every probe for longer than its pool timeout; without a pool timeout it
    never is. Callers of an exhausted pool fail, and another process could serve them. All other pools are
    ready. A pool whose provider is down is ready too, because no other process would reach the provider
    either; so is a closed pool, because the next use of its alias makes a new pool.
    """

    def __init__(self) -> None:
        self._saturated: dict[str, tuple[Pool, float]] = {}  # and saturated since when, in monotonic seconds

    def probe(self, now: float) -> dict[str, str]:
        """Return "ready" or "exhausted" by alias, for each pool that this process has made.

        ``now`` is in seconds of the monotonic clock. Raises ``ImproperlyConfigured`` for invalid settings.
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
    """Probe all pools. Return the HTTP status and the body of the response.

    The status is 503 if the settings are invalid, or if a pool is exhausted and
    ``LLM_POOL_UNREADY_WHEN_EXHAUSTED`` is set; otherwise 200. By default an exhausted pool does not make the
    process unready, because that would take down the pages of the site that call no model.
    """
    try:
        states = _readiness.probe(monotonic())
    except ImproperlyConfigured:
        return 503, {"status": "unready", "reason": "settings"}
    if "exhausted" in states.values() and unready_when_exhausted():
        return 503, {"status": "unready", "reason": "exhausted", "pools": states}
    return 200, {"status": "ready", "pools": states}
