"""Pooled, monitored, back-pressured HTTP access to LLM APIs, for Django."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_pool.version import __version__

__all__ = ["__version__", "observe", "pool", "pools", "unobserve"]

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import observe, unobserve
    from llm_pool.registry import Pools

    pool: LLMPool
    pools: Pools

# Django imports this package before settings and apps are loaded, so these names are imported on first use.
_MODULES = {
    "observe": "llm_pool.calling.record",
    "pool": "llm_pool.registry",
    "pools": "llm_pool.registry",
    "unobserve": "llm_pool.calling.record",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
