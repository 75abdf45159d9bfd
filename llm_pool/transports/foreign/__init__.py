"""Pools whose connections are those of another HTTP library: stock httpx (``httpcore``) and ``aiohttp``.

The pool itself is always ours: its ledger says who gets a connection, and when. What differs is the
connection: each is a client of the other library's that holds one connection and no more.
"""

from __future__ import annotations

from dataclasses import replace

from llm_pool.engine.config import PoolConfig
from llm_pool.engine.pool import Pool

__all__ = ["make_pool"]


def make_pool(engine: str, config: PoolConfig, name: str) -> Pool:
    """A pool on one of ``engines.ENGINES``."""
    if engine == "native":
        return Pool(config, name)
    # A client of another library dials when it is first called: it has nothing to keep warm.
    config = replace(config, limits=replace(config.limits, min_connections=0))
    if engine == "httpcore":
        from .over_httpcore import HTTPCoreDialer  # noqa: PLC0415  most processes never want it

        return Pool(config, name, HTTPCoreDialer)
    from .over_aiohttp import AiohttpDialer  # noqa: PLC0415  it may not be installed

    return Pool(replace(config, http2=False), name, AiohttpDialer)
