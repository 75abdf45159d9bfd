"""The values of the setting ENGINE: ``native`` (the engine's own connections), ``httpcore`` and ``aiohttp``.

With each value the ledger of the engine's pool decides which call gets a connection, and when. With
``httpcore`` and ``aiohttp``, each connection of the pool is a client of that library, limited to one
connection.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_pool.engine.config import PoolConfig
    from llm_pool.engine.pool import Pool

__all__ = ["ENGINES", "make_pool", "missing_extra"]

ENGINES = ("native", "httpcore", "aiohttp")


def missing_extra(engine: str) -> str | None:
    """Return the extra of this package that ``engine`` needs, or None if its packages are installed."""
    return "aiohttp" if engine == "aiohttp" and find_spec("aiohttp") is None else None


def make_pool(engine: str, config: PoolConfig, name: str) -> Pool:
    """Return a new pool with connections of the kind ``engine``, which is one of ``ENGINES``.
    The engine is imported here: a process that only reads the settings does not load it.
    """
    from llm_pool.engine.pool import Pool  # noqa: PLC0415

    if engine == "native":
        return Pool(config, name)
    # A client of another library connects when its first call is sent, so it cannot be prewarmed.
    config = replace(config, limits=replace(config.limits, min_connections=0))
    if engine == "httpcore":
        from llm_pool.backends.httpcore import HTTPCoreDialer  # noqa: PLC0415  most processes do not use it

        return Pool(config, name, HTTPCoreDialer)
    from llm_pool.backends.aiohttp import AiohttpDialer  # noqa: PLC0415  it may not be installed

    return Pool(replace(config, http2=False), name, AiohttpDialer)
