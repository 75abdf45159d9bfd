"""Records the history of the pools of one process, and takes snapshots of history and present state."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from llm_pool.engine.clock import monotonic
from llm_pool.engine.pool import Pool
from llm_pool.engine.stats.histogram import Spread
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.registry import pools

__all__ = ["HISTORY", "TICK_SECONDS", "History", "Tick", "tick_number"]

TICK_SECONDS = 2.0
HISTORY = 150  # ticks that are kept: five minutes
MAX_CONNECTIONS = 100  # connections that a snapshot lists for each pool, at most

Counts = dict[int, int]  # index of a bucket -> number of durations in it; empty buckets are left out


class Tick(NamedTuple):
    """The numbers of one pool for a period of ``TICK_SECONDS``.

    ``number``           the number of the period, counted from the start of the machine's monotonic clock:
                         the same in all processes

    Gauges at the end of the period:

    ``in_use``           connections in use
    ``max_connections``  the limit on connections
    ``waiting``          callers in the queue

    Counted during the period:

    ``requests``         calls that needed a connection
    ``reused``           calls that got a connection which had carried a call or been idle
    ``queued``           calls that found every connection in use and no room for another
    ``failed``           calls that failed with PoolTimeout or PoolFull, plus failed dials

    Durations by bucket (see ``Counts``):

    ``wait``             the wait for a connection, dial included
    ``first_byte``       from the start of a call to the head of its response
    ``total``            from the start of a call to the end of a complete response
    """

    number: int
    in_use: int
    max_connections: int
    waiting: int
    requests: int
    reused: int
    queued: int
    failed: int
    wait: Counts
    first_byte: Counts
    total: Counts


class Dials(NamedTuple):
    """When a pool last dialed, in seconds of the monotonic clock.

    ``dialed_at``       the end of the ``Tick`` in which a dial last succeeded; 0.0 if none has succeeded
    ``dial_failed_at``  the end of the ``Tick`` in which a dial last failed; 0.0 if none has failed
    """

    dialed_at: float = 0.0
    dial_failed_at: float = 0.0


def tick_number(now: float) -> int:
    """Return the ``Tick.number`` of the last period that has ended by ``now``.

    ``now`` is in seconds of the monotonic clock.
    """
    return int(now // TICK_SECONDS)


class History:
    """The last ``HISTORY`` ticks of each pool of this process, each a ``Tick``.

    Call ``record`` on one thread only; ``snapshot`` can be called from any thread.
    """

    def __init__(self) -> None:
        self._began = monotonic()
        self._ticks: dict[str, deque[Tick]] = {}
        self._last: dict[str, tuple[Pool, PoolStats, Dials]] = {}

    def record(self, now: float) -> None:
        """Add a ``Tick`` for each pool: its numbers for the period that ends at ``now``.

        ``now`` is in seconds of the monotonic clock.
        """
        for pool in pools.made():
            engine, stats = pool.engine, pool.engine.stats()
            before, dials = self._last_of(pool.alias, engine)
            ticks = self._ticks.setdefault(pool.alias, deque(maxlen=HISTORY))
            ticks.append(_tick(tick_number(now), stats, before))
            self._last[pool.alias] = (engine, stats, _dials(stats, before, dials, now))

    def _last_of(self, alias: str, engine: Pool) -> tuple[PoolStats | None, Dials]:
        """Return the stats and ``Dials`` of ``engine`` at its last ``Tick``, or ``(None, Dials())``.

        An alias gets a new engine when its pool is made again. The counters then start at 0.
        """
        known = self._last.get(alias)
        return known[1:] if known is not None and known[0] is engine else (None, Dials())

    def snapshot(self) -> dict[str, Any]:
        """Return what this process contributes to the status page, as a dict for JSON.

        The dict has "worker" (the process id), "up" (seconds since the history began), and by alias in
        "pools" the present state, the connections and the ticks. Closed pools are left out. Can be called
        from any thread.
        """
        now = monotonic()
        shown = {
            pool.alias: {
                "now": _plain(pool.engine.stats()) | self._last_of(pool.alias, pool.engine)[1]._asdict(),
                "connections": _connections(pool.engine),
                "ticks": [list(tick) for tick in list(self._ticks.get(pool.alias, ()))],
            }
            for pool in pools.made()
            if not pool.engine.closed
        }
        return {"worker": os.getpid(), "up": now - self._began, "pools": shown}


def _tick(number: int, stats: PoolStats, before: PoolStats | None) -> Tick:
    def grown(name: str) -> int:
        return int(getattr(stats, name) - (getattr(before, name) if before is not None else 0))

    def spread(name: str) -> Counts:
        earlier: Spread | None = getattr(before, name) if before is not None else None
        return _grown(getattr(stats, name).counts, earlier.counts if earlier is not None else None)

    failed_dials = sum(stats.dial_failures.values())
    if before is not None:
        failed_dials -= sum(before.dial_failures.values())
    return Tick(
        number=number,
        in_use=stats.in_use,
        max_connections=stats.max_connections,
        waiting=stats.waiting,
        requests=grown("requests"),
        reused=max(0, grown("reused")),  # it falls when a call does not use the connection that it got
        queued=grown("queued"),
        failed=grown("pool_timeouts") + grown("refused") + failed_dials,
        wait=spread("wait"),
        first_byte=spread("first_byte"),
        total=spread("total"),
    )


def _dials(stats: PoolStats, before: PoolStats | None, dials: Dials, now: float) -> Dials:
    if stats.dial.count > (before.dial.count if before is not None else 0):
        dials = dials._replace(dialed_at=now)
    if stats.dial_failures != (before.dial_failures if before is not None else {}):
        dials = dials._replace(dial_failed_at=now)
    return dials


def _grown(counts: Sequence[int], before: Sequence[int] | None) -> Counts:
    earlier = before or [0] * len(counts)
    grown = (now - then for now, then in zip(counts, earlier, strict=True))
    return {bucket: more for bucket, more in enumerate(grown) if more}


def _plain(stats: PoolStats) -> dict[str, Any]:
    """Return the gauges and counters of ``stats`` by name, without the histograms."""
    values = {field.name: getattr(stats, field.name) for field in fields(stats)}
    return {name: value for name, value in values.items() if not isinstance(value, Spread)}


def _connections(pool: Pool) -> list[dict[str, Any]]:
    return [
        {
            "origin": str(each.origin),
            "state": each.state,
            "age": each.age,
            "streams": each.streams,
            "loop": each.loop,
        }
        for each in pool.connections()[:MAX_CONNECTIONS]
    ]
