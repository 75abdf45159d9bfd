"""Who is told when something in a pool has changed: soon, and a few times a second at most."""

from __future__ import annotations

from collections.abc import Callable

from .stats import PoolStats

__all__ = ["NEWS_SECONDS", "Listener", "listeners"]

NEWS_SECONDS = 0.25

Listener = Callable[[str, PoolStats, PoolStats | None], None]
"""Takes the pool's name, its stats, and those it was told last. On an event loop: it must not block."""

listeners: list[Listener] = []
