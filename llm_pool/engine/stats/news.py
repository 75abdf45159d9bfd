"""Who is told when something in a pool has changed: soon, and a few times a second at most."""

from __future__ import annotations

from .listeners import Listeners
from .stats import PoolStats

__all__ = ["NEWS_SECONDS", "listeners"]

NEWS_SECONDS = 0.25

listeners: Listeners[str, PoolStats, PoolStats | None] = Listeners()
"""Take the pool's name, its stats, and those told last. On an event loop: they must not block."""
