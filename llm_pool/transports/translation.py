"""Translates httpcore's requests into the engine's requests, and exchanges into httpcore's responses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import httpcore
import httpx

from llm_pool.engine.config import DEFAULT_PORTS, Origin, Timeouts
from llm_pool.engine.content_coding import describe_coding
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.head import Headers, RequestHead
from llm_pool.engine.request import Request
from llm_pool.exceptions import InvalidRequest, ProtocolError, with_article

from .body import AsyncBody, Body

__all__ = ["origin_of", "to_engine", "to_httpcore"]

NO_WEIGHT = re.compile(r"q=0(\.0*)?")  # marks a coding that is not accepted


def to_engine(request: httpcore.Request, defaults: Timeouts) -> Request:
    """Return the engine's request for a request of httpcore.

    If the request has no timeouts, ``defaults`` are used. The total timeout always comes from ``defaults``,
    or from the extension ``llm_pool_timeouts`` if there is one.
    ``body`` is None if ``request.stream`` must be read piece by piece. The extensions ``llm_pool_scope``,
    ``llm_pool_marks`` and ``llm_pool_content_timer`` become ``scope``, ``marks`` and ``content_timer``, and
    httpx's ``sni_hostname`` becomes a part of the origin. Raises httpcore.UnsupportedProtocol for a scheme
    other than http and https, and InvalidRequest for a ``sni_hostname`` that is no
    string, and for what ``RequestHead`` refuses.
    """
    url, extensions = request.url, request.extensions
    stream = request.stream
    tls_name = extensions.get("sni_hostname")
    if tls_name is not None and not isinstance(tls_name, str):
        raise InvalidRequest(f"the extension sni_hostname is {with_article(tls_name)}, not a string")
    origin = origin_of(url.scheme, url.host, url.port, tls_name)
    return Request(
        RequestHead(origin, request.method, url.target, request.headers),
        b"".join(stream) if isinstance(stream, httpx.ByteStream) else None,
        _timeouts(extensions.get("timeout"), extensions.get("llm_pool_timeouts", defaults)),
        scope=extensions.get("llm_pool_scope"),
        marks=extensions.get("llm_pool_marks"),
        content_timer=extensions.get("llm_pool_content_timer"),
    )


def to_httpcore(exchange: Exchange, body: type[Body | AsyncBody]) -> httpcore.Response:
    """Return a response of httpcore for an exchange with a response head. The content is ``body(exchange)``.

    Raises ProtocolError, and closes the exchange, if the body has a content coding without a decoder and the
    request did not accept this coding. Otherwise httpx gets the body as it arrived.
    """
    coding = exchange.coding
    if coding and not _accepts(exchange.request.head.headers, coding):
        exchange.close_threadsafe()
        raise ProtocolError(f"{exchange.request.origin} sent {describe_coding(coding)}")
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


def _accepts(headers: Headers, codings: str) -> bool:
    """Return whether a request with ``headers`` accepts ``codings`` (RFC 9110, section 12.5.3).

    ``codings``: content codings in lower case, joined by ", ".
    """
    value = b",".join(value for name, value in headers if name.lower() == b"accept-encoding")
    weights = {}
    for part in value.decode("latin-1").lower().split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip()] = parameter.replace(" ", "")
    return all(
        not NO_WEIGHT.fullmatch(weights.get(coding, weights.get("*", "q=0")))
        for coding in codings.split(", ")
    )


@lru_cache(maxsize=1024)
def origin_of(scheme: bytes, host: bytes, port: int | None, tls_name: str | None = None) -> Origin:
    """Return the origin of a URL, with the default port if ``port`` is None.

    ``tls_name``: the name for TLS; ignored without TLS, and if it is None or "". Raises
    httpcore.UnsupportedProtocol unless ``scheme`` is http or https.
    """
    name = scheme.decode("ascii")
    if name not in DEFAULT_PORTS:
        raise httpcore.UnsupportedProtocol(
            f"{name}:// is not a supported scheme; the URL must begin with https:// or http://"
        )
    decoded = host.decode("ascii").strip("[]")
    tls_name = tls_name.lower() if tls_name and name == "https" else None
    return Origin(name, decoded, port or DEFAULT_PORTS[name], tls_name if tls_name != decoded else None)


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
