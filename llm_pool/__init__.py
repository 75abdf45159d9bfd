"""Pooled, monitored, back-pressured HTTP access to LLM APIs, for Django."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.version import __version__

__all__ = ["__version__", "pool", "pools"]

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.registry import Pools

    pool: LLMPool
    pools: Pools


def __getattr__(name: str) -> Any:
    # Django imports this package before its settings and apps are there: the pools come on first use.
    if name in __all__:
        from llm_pool import registry  # noqa: PLC0415

        globals().update(pool=registry.pool, pools=registry.pools)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
