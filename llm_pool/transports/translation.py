"""Between httpcore's requests and the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import httpcore
import httpx

from llm_pool.engine.config import DEFAULT_PORTS, Origin, Timeouts
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.request import Headers, Request

from .body import AsyncBody, Body
from .errors import ProtocolError

__all__ = ["content_coding", "origin_of", "to_engine", "to_httpcore"]


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
        request.extensions.get("llm_pool_scope"),
    )


def to_httpcore(exchange: Exchange, body: type[Body | AsyncBody]) -> httpcore.Response:
    """The response whose head has come, with a ``body`` to read on.

    Raises ProtocolError where it is compressed and the request had not offered to take that. httpx expands
    as much as comes, a thousandfold and more, before anybody sees a byte of it: who has not asked for a
    compressed body (the pool's own clients do not) need not reckon with one.
    """
    coding = content_coding(exchange.headers)
    if coding and not _offers(exchange.request.headers, coding):
        exchange.leave()
        raise ProtocolError(
            f"{exchange.request.origin} compressed its response by {coding!r}, "
            "although the request did not accept that"
        )
    content = body(exchange)
    extensions = {
        "http_version": exchange.http_version,
        "reason_phrase": exchange.reason,
        "llm_pool_marks": exchange.marks,
        "llm_pool_body": content,
    }
    return httpcore.Response(
        exchange.status, headers=exchange.headers, content=content, extensions=extensions
    )


def content_coding(headers: Headers) -> str:
    """How a response is compressed; "" where it is not."""
    for name, value in headers:
        if len(name) == 16 and name.lower() == b"content-encoding" and value.lower() != b"identity":
            return value.decode("latin-1")
    return ""


def _offers(headers: Headers, codings: str) -> bool:
    """Whether a request with these headers takes a response in these codings (RFC 9110, section 12.5.3)."""
    accepted = b",".join(value for name, value in headers if name.lower() == b"accept-encoding").lower()
    offered = {part.partition(b";")[0].strip() for part in accepted.split(b",")}
    return b"*" in offered or all(
        coding.strip() in offered for coding in codings.lower().encode().split(b",")
    )


@lru_cache(maxsize=1024)
def origin_of(scheme: bytes, host: bytes, port: int | None) -> Origin:
    """Raises httpcore.UnsupportedProtocol for anything but http and https."""
    name = scheme.decode("ascii")
    if name not in DEFAULT_PORTS:
        raise httpcore.UnsupportedProtocol(
            f"{name}:// is not a supported scheme; the URL must begin with https:// or http://"
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
