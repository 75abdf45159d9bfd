"""The pools of this process: ``pools["alias"]``, and ``pool`` for the alias "default".

Both work as ``caches`` and ``cache`` of ``django.core.cache``. No module may be named ``llm_pool.pools`` or
``llm_pool.pool``: its import would replace the object.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.connection import ConnectionProxy

from llm_pool.engine.loops.process import after_fork
from llm_pool.engine.loops.threads import hold

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.conf.settings import PoolSettings

__all__ = ["DEFAULT_ALIAS", "pool", "pools"]

DEFAULT_ALIAS = "default"


class Pools:
    """The pools named in ``settings.LLM_POOL``, each made on first use."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # taken by ``hold`` only
        self._made: dict[str, LLMPool] = {}
        self._generation = 0  # incremented when all pools are closed, as after each change of the settings

    def __getitem__(self, alias: str) -> LLMPool:
        """Return the pool of ``alias``. Make the pool at the first use, and again after it was closed.

        Raises ``ImproperlyConfigured`` for an unknown alias or invalid settings.
        """
        pool = self._made.get(alias)
        if pool is None or pool.engine.closed:
            pool = self._make(alias)
        return pool

    def __iter__(self) -> Iterator[str]:
        return iter(_load())

    def __contains__(self, alias: object) -> bool:
        return alias in _load()

    def all(self) -> list[LLMPool]:
        """Return every pool of the settings, and make those that are missing.

        Raises ``ImproperlyConfigured`` for invalid settings.
        """
        return [self[alias] for alias in self]

    def made(self) -> list[LLMPool]:
        """Return the pools made since the last ``close_all`` or ``aclose_all``: the latest of each alias."""
        return list(self._made.values())

    def close_all(self) -> None:
        """Close every pool. The next use of an alias makes a new pool, from the settings at that time."""
        for pool in hold(self._lock, self._forget_made):
            pool.close()

    async def aclose_all(self) -> None:
        """``close_all`` for async code."""
        for pool in hold(self._lock, self._forget_made):
            await pool.aclose()

    def _make(self, alias: str) -> LLMPool:
        while True:
            generation = self._generation
            known = _load()  # without the lock: it may import a custom provider, which may use a pool
            if alias not in known:
                raise ImproperlyConfigured(_unknown(alias, list(known)))
            pool = hold(self._lock, self._get_or_make, alias, known[alias], generation)
            if pool is not None:
                return pool

    def _get_or_make(self, alias: str, settings: PoolSettings, generation: int) -> LLMPool | None:
        """Return the pool of ``settings``, and make it if it is missing. Called with the lock held.

        ``generation`` is ``_generation`` from before ``settings`` was read. Returns None if it has changed:
        all pools were closed since then, and ``settings`` can be out of date.
        """
        if generation != self._generation:
            return None
        pool = self._made.get(alias)
        if pool is None or pool.engine.closed:
            pool = self._made[alias] = _new_pool(settings, partial(self.__getitem__, alias))
        return pool

    def _forget_made(self) -> list[LLMPool]:
        self._generation += 1
        made, self._made = self._made, {}
        return list(made.values())

    def new_lock(self) -> None:
        """Make a new lock. Called in the child of a fork: a thread of the parent may hold the old lock."""
        self._lock = threading.RLock()


def _load() -> dict[str, PoolSettings]:
    from llm_pool.conf.settings import load  # noqa: PLC0415  a command that only imports ``pools`` starts faster

    return load()


def _new_pool(settings: PoolSettings, following: Callable[[], LLMPool]) -> LLMPool:
    from llm_pool.calling.pool import LLMPool  # noqa: PLC0415  a command without calls starts faster

    return LLMPool(settings, following)


def _unknown(alias: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(alias, known, 1)
    hint = f"Did you mean {similar[0]!r}?" if similar else f"Available: {', '.join(map(repr, known))}."
    return f"LLM_POOL has no pool named {alias!r}. {hint}"


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting == "LLM_POOL":
        pools.close_all()


pools = Pools()
pool = cast("LLMPool", ConnectionProxy(pools, DEFAULT_ALIAS))  # type: ignore[arg-type]  # it only reads pools[alias]
setting_changed.connect(_settings_changed, dispatch_uid="llm_pool.registry")
after_fork(pools.new_lock)
