"""What a pool looks like at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .ledger import Ledger

__all__ = ["PoolStats", "describe", "take_stats"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Gauges of now and counters since the pool was made. Counts, but ``utilization``: 0.0 to 1.0."""

    max_connections: int
    connections: int
    in_use: int
    idle: int
    dialing: int
    waiting: int
    utilization: float
    requests: int
    reused: int
    opened: int
    closed: Mapping[str, int]
    dial_failure: str | None


def take_stats(ledger: Ledger) -> PoolStats:
    """Read the ledger, under its lock."""
    stock = ledger.stock
    in_use, idle, dialing = stock.in_use, len(stock.bound.idle), ledger.growth.dialing
    most = ledger.limits.max_connections
    failure = ledger.last_failure
    return PoolStats(
        max_connections=most,
        connections=in_use + idle + dialing,
        in_use=in_use,
        idle=idle,
        dialing=dialing,
        waiting=ledger.waiting,
        utilization=in_use / most,
        requests=ledger.requests,
        reused=stock.reused,
        opened=stock.opened,
        closed=dict(stock.closed_by_reason),
        dial_failure=str(failure) if failure is not None else None,
    )


def describe(stats: PoolStats) -> str:
    """The state of a pool in words, for the message of an error."""
    words = (
        f"in use {stats.in_use}, idle {stats.idle}, dialing {stats.dialing}, "
        f"waiting {stats.waiting}, max {stats.max_connections}"
    )
    return f"{words}; last dial failure: {stats.dial_failure}" if stats.dial_failure else words
