"""``pools["alias"]`` and ``pool``: the process's pools, like ``django.core.cache``'s caches and cache.

No module of this package may be called ``pools``: once imported it would take the place of the object.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from llm_pool.conf import PoolSettings, load

if TYPE_CHECKING:
    from llm_pool.service import LLMPool

__all__ = ["DEFAULT_ALIAS", "pool", "pools"]

DEFAULT_ALIAS = "default"


class Pools:
    """The pools named in ``settings.LLM_POOL``, each made on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, LLMPool] = {}
        self._generation = 0

    def __getitem__(self, alias: str) -> LLMPool:
        """Raises ``ImproperlyConfigured`` for an unknown alias, and for settings that cannot be."""
        pool = self._made.get(alias)
        if pool is None or pool.engine.closed:
            pool = self._make(alias)
        return pool

    def __iter__(self) -> Iterator[str]:
        return iter(load())

    def __contains__(self, alias: object) -> bool:
        return alias in load()

    def all(self) -> list[LLMPool]:
        """Every pool of the settings."""
        return [self[alias] for alias in self]

    def made(self) -> list[LLMPool]:
        """The pools that have been used so far."""
        return list(self._made.values())

    def close_all(self) -> None:
        """Close every pool; the next use makes new ones from the settings of that time."""
        with self._lock:
            self._generation += 1
            made, self._made = self._made, {}
        for pool in made.values():
            pool.close()

    async def aclose_all(self) -> None:
        """``close_all`` for async code."""
        with self._lock:
            self._generation += 1
            made, self._made = self._made, {}
        for pool in made.values():
            await pool.aclose()

    def _make(self, alias: str) -> LLMPool:
        while True:
            generation = self._generation
            known = load()  # without the lock: it may import a provider of the user's, which may use a pool
            if alias not in known:
                raise ImproperlyConfigured(_unknown(alias, list(known)))
            with self._lock:
                if generation != self._generation:
                    continue  # they have changed meanwhile
                pool = self._made.get(alias)
                if pool is None or pool.engine.closed:
                    pool = self._made[alias] = _open(known[alias])
                return pool

    def new_locks(self) -> None:
        """In the child of a fork, whose parent may have held the lock."""
        self._lock = threading.Lock()


class DefaultPool:
    """``pools["default"]``, looked up anew at each use, so that new settings hold at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(pools[DEFAULT_ALIAS], name)

    def __repr__(self) -> str:
        return repr(pools[DEFAULT_ALIAS])


def _open(settings: PoolSettings) -> LLMPool:
    from llm_pool.service import LLMPool  # noqa: PLC0415  commands that call no model start without the engine

    return LLMPool(settings)


def _unknown(alias: str, known: list[str]) -> str:
    near = difflib.get_close_matches(alias, known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Available: {', '.join(map(repr, known))}."
    return f"LLM_POOL has no pool named {alias!r}. {hint}"


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting == "LLM_POOL":
        pools.close_all()


pools = Pools()
pool = DefaultPool()
setting_changed.connect(_settings_changed, dispatch_uid="llm_pool.registry")
