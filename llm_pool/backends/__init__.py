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
    """Return the extra of llm_pool that must be installed for ``engine``; None if nothing is missing."""
    return "aiohttp" if engine == "aiohttp" and find_spec("aiohttp") is None else None


def make_pool(engine: str, config: PoolConfig, name: str) -> Pool:
    """Return a new pool with connections of the kind ``engine``, one of ``ENGINES``.

    For a value other than "native", ``min_connections`` of the pool is 0. For "aiohttp", HTTP/2 is off. The
    modules are imported here, so that a process that only reads the settings does not load them.
    """
    from llm_pool.engine.pool import Pool  # noqa: PLC0415

    if engine == "native":
        return Pool(config, name)
    # Another library's client connects when its first call is sent, so it cannot be prewarmed.
    config = replace(config, limits=replace(config.limits, min_connections=0))
    if engine == "httpcore":
        from llm_pool.backends.httpcore import HTTPCoreDialer  # noqa: PLC0415  most processes do not use it

        return Pool(config, name, HTTPCoreDialer)
    from llm_pool.backends.aiohttp import AiohttpDialer  # noqa: PLC0415  it may not be installed

    return Pool(replace(config, http2=False), name, AiohttpDialer)
