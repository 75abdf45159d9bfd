"""Translates the httpx errors of mocks and of users' own transports into errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from llm_pool.exceptions import (
    ConnectFailed,
    ConnectTimeout,
    InvalidRequest,
    LLMPoolError,
    PoolTimeout,
    ProtocolError,
    ProxyFailed,
    ReadFailed,
    ReadTimeout,
    TransportFailed,
    UnsupportedScheme,
    WriteFailed,
    WriteTimeout,
)

__all__ = ["translate_httpx_errors"]

_COUNTERPARTS: dict[type[httpx.RequestError], type[LLMPoolError]] = {
    httpx.PoolTimeout: PoolTimeout,
    httpx.ConnectTimeout: ConnectTimeout,
    httpx.ReadTimeout: ReadTimeout,
    httpx.WriteTimeout: WriteTimeout,
    httpx.ConnectError: ConnectFailed,
    httpx.ReadError: ReadFailed,
    httpx.WriteError: WriteFailed,
    httpx.ProxyError: ProxyFailed,
    httpx.RemoteProtocolError: ProtocolError,
    httpx.DecodingError: ProtocolError,
    httpx.LocalProtocolError: InvalidRequest,
    httpx.UnsupportedProtocol: UnsupportedScheme,
}


@contextmanager
def translate_httpx_errors() -> Iterator[None]:
    """Replace an httpx error of the ``with`` block by an error of this package of the same kind.

    Replaces ``httpx.TransportError``, ``DecodingError`` and ``InvalidURL``, and no other error; an
    LLMPoolError is raised unchanged. The httpx error is the cause of the new error, which contains the same
    message and has the same request. Without an error of the same kind, TransportFailed is raised.
    """
    try:
        yield
    except LLMPoolError:
        raise
    except (httpx.TransportError, httpx.DecodingError) as error:
        kinds = (_COUNTERPARTS[kind] for kind in type(error).__mro__ if kind in _COUNTERPARTS)
        translated = next(kinds, TransportFailed)(str(error))
        if isinstance(translated, httpx.RequestError):
            translated._request = error._request
        raise translated from error
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"the URL cannot be used: {error}") from error
