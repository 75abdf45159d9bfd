"""The engine: pooled HTTP connections, without Django and without httpx."""

from __future__ import annotations

from .config import DNS, TLS, Limits, Origin, PoolConfig, Timeouts
from .exchange import Exchange
from .pool import Pool
from .request import Headers, Marks, Request, Whole
from .stats.inventory import ConnectionInfo
from .stats.stats import PoolStats

__all__ = [
    "DNS",
    "TLS",
    "ConnectionInfo",
    "Exchange",
    "Headers",
    "Limits",
    "Marks",
    "Origin",
    "Pool",
    "PoolConfig",
    "PoolStats",
    "Request",
    "Timeouts",
    "Whole",
]
