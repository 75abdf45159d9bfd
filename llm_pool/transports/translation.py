"""Between httpcore's requests and the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from llm_pool.engine import Exchange, Origin, Request, Timeouts
from llm_pool.engine.config import DEFAULT_PORTS

__all__ = ["origin_of", "to_engine", "to_httpcore"]


def to_engine(request: httpcore.Request, defaults: Timeouts) -> Request:
    """The engine's request; its body is None where it must be read from ``request.stream`` piece by piece."""
    url = request.url
    stream = request.stream
    return Request(
        origin_of(url.scheme, url.host, url.port),
        request.method,
        url.target,
        request.headers,
        b"".join(stream) if isinstance(stream, httpx.ByteStream) else None,
        _timeouts(request.extensions.get("timeout"), defaults),
    )


def to_httpcore(exchange: Exchange, body: Any) -> httpcore.Response:
    """The response whose head has come, with ``body`` to read on."""
    extensions = {
        "http_version": exchange.http_version,
        "reason_phrase": exchange.reason,
        "llm_pool_marks": exchange.marks,
        "llm_pool_exchange": exchange,
    }
    return httpcore.Response(exchange.status, headers=exchange.headers, content=body, extensions=extensions)


@lru_cache(maxsize=1024)
def origin_of(scheme: bytes, host: bytes, port: int | None) -> Origin:
    """Raises httpcore.UnsupportedProtocol for anything but http and https."""
    name = scheme.decode("ascii")
    if name not in DEFAULT_PORTS:
        raise httpcore.UnsupportedProtocol(
            f"{name}:// is not spoken here; the URL must begin with https:// or http://"
        )
    return Origin(name, host.decode("ascii").strip("[]"), port or DEFAULT_PORTS[name])


def _timeouts(given: Mapping[str, float | None] | None, defaults: Timeouts) -> Timeouts:
    if given is None:
        return defaults
    return _merged(
        given.get("connect"), given.get("read"), given.get("write"), given.get("pool"), defaults.total
    )


@lru_cache(maxsize=256)
def _merged(
    connect: float | None, read: float | None, write: float | None, pool: float | None, total: float | None
) -> Timeouts:
    return Timeouts(connect, read, write, pool, total)
