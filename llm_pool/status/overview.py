"""Merges the snapshots of all workers into the content of the status page."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from llm_pool.engine.clock import monotonic
from llm_pool.engine.stats.histogram import BOUNDS, find_quantile
from llm_pool.status.recorder import recorder
from llm_pool.status.snapshot import HISTORY, TICK_SECONDS, Tick, tick_number
from llm_pool.status.workers import others, shared_cache

__all__ = ["merge", "overview", "quantile"]

logger = logging.getLogger("llm_pool.status")

WINDOW = 5  # ticks that a percentile covers: a single tick has too few calls
SETTLING = 0.5  # seconds from the end of a tick until all workers have published the tick
EDGES = (0.0, *BOUNDS)
MAXIMA = ("longest_wait", "oldest_connection", "dialed_at", "dial_failed_at")  # merged by max, not by sum


def overview() -> dict[str, Any]:
    """Return the content of the status page as a dict for JSON. Blocks while the cache is read.

    The key "scope" says which workers the content covers:

    ``machine``      all workers of this machine
    ``process``      only this worker, because the workers share no cache
    ``unreachable``  only this worker, because the cache cannot be read

    Each call keeps the recorder of this process running: see ``Recorder.attend``.
    """
    recorder.attend()
    own = recorder.snapshot()
    snapshots, scope = [own], "process"
    try:
        cache = shared_cache()
        if cache is not None:
            snapshots += others(cache, own["worker"])
            scope = "machine"
    except Exception:
        logger.exception("the cache cannot be read: the page shows one process only")
        scope = "unreachable"
    return {"scope": scope, **merge(snapshots, monotonic())}


def merge(snapshots: Sequence[dict[str, Any]], now: float) -> dict[str, Any]:
    """Return the content of the status page, merged from the snapshots of all workers.

    Adds up the numbers, but takes the highest value of each name in ``MAXIMA``, and calculates utilization
    and percentiles over all workers. ``now`` is in seconds of the monotonic clock.
    """
    last = tick_number(now - SETTLING)
    aliases = sorted({alias for snapshot in snapshots for alias in snapshot["pools"]})
    workers = [{"worker": each["worker"], "up": each["up"], **_usage(each)} for each in snapshots]
    return {
        "tick": TICK_SECONDS,
        "workers": sorted(workers, key=lambda each: int(each["worker"])),
        "pools": [_pool(alias, snapshots, last) for alias in aliases],
    }


def _usage(snapshot: dict[str, Any]) -> dict[str, int]:
    return {
        name: sum(pool["now"][name] for pool in snapshot["pools"].values())
        for name in ("in_use", "connections", "waiting", "requests")
    }


def _pool(alias: str, snapshots: Sequence[dict[str, Any]], last: int) -> dict[str, Any]:
    parts = [(each["worker"], each["pools"][alias]) for each in snapshots if alias in each["pools"]]
    listed = [{"worker": worker, **each} for worker, part in parts for each in part["connections"]]
    return {
        "alias": alias,
        "now": _sum([part["now"] for _, part in parts]),
        "connections": sorted(listed, key=lambda each: (each["state"] != "in use", -each["age"])),
        "series": _series([_read(tick) for _, part in parts for tick in part["ticks"]], last),
    }


def _sum(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if name in MAXIMA:
            merged[name] = max(values)
        elif isinstance(first, dict):
            merged[name] = dict(sum((Counter(value) for value in values), Counter[str]()))
        elif name == "dial_failure":
            merged[name] = next((value for value in values if value), None)
        else:
            merged[name] = sum(values)
    merged["utilization"] = merged["in_use"] / merged["max_connections"]
    none_open = merged["connections"] == merged["dialing"]
    # Not decided by ``dial_failure``: a worker keeps that message even if another worker has connected since.
    merged["unreachable"] = none_open and merged["dial_failed_at"] > merged["dialed_at"]
    return merged


def _read(values: Sequence[Any]) -> Tick:
    """Make a ``Tick`` from its values. If they come from JSON, the keys of their dicts are strings."""
    *numbers, wait, first_byte, total = values
    spreads = ({int(bucket): count for bucket, count in each.items()} for each in (wait, first_byte, total))
    return Tick(*numbers, *spreads)


def _series(ticks: Iterable[Tick], last: int) -> dict[str, list[float | None]]:
    """Return the series of one pool by name: lists with one value for each period of the history.

    ``ticks`` has each ``Tick`` of the pool in all workers. ``last`` is the ``Tick.number`` of the newest
    period, whose values come last. A percentile covers its own period and those before it, ``WINDOW`` in all.
    A value is None if there is no data for it.
    """
    by_number: dict[int, list[Tick]] = {}
    for tick in ticks:
        by_number.setdefault(tick.number, []).append(tick)
    numbers = range(last - HISTORY + 1, last + 1)
    groups = [by_number.get(number, []) for number in numbers]

    def of_all(name: str, scale: float = 1.0) -> list[float | None]:
        return [sum(getattr(tick, name) for tick in group) * scale if group else None for group in groups]

    def percentile(name: str, fraction: float) -> list[float | None]:
        found: list[float | None] = []
        for end in range(1, len(groups) + 1):
            counts: Counter[int] = Counter()
            for tick in (tick for group in groups[max(0, end - WINDOW) : end] for tick in group):
                counts.update(getattr(tick, name))
            found.append(quantile(counts, fraction))
        return found

    in_use, limit = of_all("in_use"), of_all("max_connections")
    rates = {name: of_all(name, 1 / TICK_SECONDS) for name in ("requests", "reused", "queued", "failed")}
    percentiles = {
        f"{name}_p{percent}": percentile(name, percent / 100)
        for name in ("wait", "first_byte", "total")
        for percent in (50, 95)
    }
    used = [a / b if a is not None and b else None for a, b in zip(in_use, limit, strict=True)]
    return {"utilization": used, "waiting": of_all("waiting"), **rates, **percentiles}


def quantile(counts: Counter[int], fraction: float) -> float | None:
    """Return the seconds that ``fraction`` of the durations did not exceed; None if there are no durations.

    ``counts`` has the number of durations by the index of their bucket in ``BOUNDS``. Durations are assumed
    to be spread evenly within a bucket. A duration longer than ``BOUNDS[-1]`` counts as ``BOUNDS[-1]``.
    """
    found = find_quantile([counts[bucket] for bucket in range(len(EDGES))], fraction)
    if found is None:
        return None
    bucket, before = found
    if bucket + 1 == len(EDGES):
        return EDGES[-1]
    low, high = EDGES[bucket], EDGES[bucket + 1]
    return low + (high - low) * (fraction * counts.total() - before) / counts[bucket]
