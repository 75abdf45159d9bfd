"""Translates the httpx errors of mocks and of users' own transports into errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from llm_pool.exceptions import (
    ConnectFailed,
    ConnectTimeout,
    InvalidParameter,
    InvalidRequest,
    InvalidURL,
    LLMPoolError,
    PoolTimeout,
    ProtocolError,
    ProxyFailed,
    ReadFailed,
    ReadTimeout,
    StreamConsumed,
    TooManyRedirects,
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
    httpx.TooManyRedirects: TooManyRedirects,
    httpx.LocalProtocolError: InvalidRequest,
    httpx.UnsupportedProtocol: UnsupportedScheme,
}


@contextmanager
def translate_httpx_errors() -> Iterator[None]:
    """Replace an httpx error of the ``with`` block by an error of this package of the same kind.

    The httpx error is the cause of the new error, which has the same message and the same request. Without an
    error of the same kind, TransportFailed is raised. An LLMPoolError is raised unchanged.

    Of errors in the caller's own arguments, replaces ``InvalidURL``, ``StreamConsumed`` and
    UnicodeEncodeError. All others are raised unchanged: TypeError and ValueError of arguments that httpx
    does not take, and what the caller's own body, hook or authentication raises.
    """
    try:
        yield
    except LLMPoolError:
        raise
    except httpx.RequestError as error:
        kinds = (_COUNTERPARTS[kind] for kind in type(error).__mro__ if kind in _COUNTERPARTS)
        raise next(kinds, TransportFailed)(str(error), request=error._request) from error
    except httpx.InvalidURL as error:
        raise InvalidURL(f"the URL cannot be used: {error}") from error
    except httpx.StreamConsumed as error:
        raise StreamConsumed(
            "a body that is a generator was to be sent or read a second time, as for a redirect or an "
            "authentication; give the body as bytes"
        ) from error
    except UnicodeEncodeError as error:
        raise InvalidParameter(
            f"the request contains {error.object[error.start]!a}, which {error.encoding} cannot encode: in "
            "its URL, headers or body; give a header in ASCII, or as bytes"
        ) from error
