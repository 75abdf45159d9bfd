"""Each engine error with its httpx face, so that code written for httpx goes on working; and the way back.

The family mirrors the engine's: the public ``PoolFull`` is a public ``PoolTimeout``, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from llm_pool.engine import errors as engine
from llm_pool.engine.errors import LLMPoolError

__all__ = [
    "ConnectFailed",
    "ConnectTimeout",
    "DNSFailed",
    "InvalidRequest",
    "LLMPoolError",
    "PoolClosed",
    "PoolFull",
    "PoolTimeout",
    "ProtocolError",
    "ProxyFailed",
    "ReadFailed",
    "ReadTimeout",
    "TLSFailed",
    "TotalTimeout",
    "TransportFailed",
    "UnsupportedScheme",
    "WriteFailed",
    "WriteTimeout",
    "adopted",
    "public",
]


class PoolTimeout(engine.PoolTimeout, httpx.PoolTimeout):
    """No connection could be had within the pool timeout. The message says what the pool looked like."""


class PoolFull(engine.PoolFull, PoolTimeout):
    """As many callers wait as may wait (``max_waiting``); this one was refused at once."""


class PoolClosed(engine.PoolClosed, httpx.TransportError):
    """The pool was closed before or during the call."""


class ConnectFailed(engine.ConnectFailed, httpx.ConnectError):
    """No connection could be made."""


class ConnectTimeout(engine.ConnectTimeout, ConnectFailed, httpx.ConnectTimeout):
    """No connection could be made within the connect timeout."""


class DNSFailed(engine.DNSFailed, ConnectFailed):
    """The host's name has no address."""


class TLSFailed(engine.TLSFailed, ConnectFailed):
    """The TLS handshake failed: nothing of the request was sent."""


class ProxyFailed(engine.ProxyFailed, ConnectFailed, httpx.ProxyError):
    """The proxy did not open a tunnel."""


class ReadTimeout(engine.ReadTimeout, httpx.ReadTimeout):
    """The server sent nothing for longer than the read timeout."""


class TotalTimeout(engine.TotalTimeout, ReadTimeout):
    """The call took longer than the total timeout."""


class WriteTimeout(engine.WriteTimeout, httpx.WriteTimeout):
    """The server took nothing of the request for longer than the write timeout."""


class ReadFailed(engine.ReadFailed, httpx.ReadError):
    """The connection broke while its response was read."""


class WriteFailed(engine.WriteFailed, httpx.WriteError):
    """The connection broke while the request was written."""


class ProtocolError(engine.ProtocolError, httpx.RemoteProtocolError):
    """The server broke the rules of HTTP, or of the API that it offers."""


class InvalidRequest(engine.InvalidRequest, httpx.LocalProtocolError):
    """The request cannot be sent as it is: nothing of it was sent."""


class UnsupportedScheme(InvalidRequest, httpx.UnsupportedProtocol):
    """The URL begins with neither ``http://`` nor ``https://``."""


class TransportFailed(LLMPoolError, httpx.TransportError):
    """The face of an error that has none of its own: none of the engine's, as a test holds."""


_FACES: dict[type[LLMPoolError], type[LLMPoolError]] = {
    engine.PoolTimeout: PoolTimeout,
    engine.PoolFull: PoolFull,
    engine.PoolClosed: PoolClosed,
    engine.ConnectFailed: ConnectFailed,
    engine.ConnectTimeout: ConnectTimeout,
    engine.DNSFailed: DNSFailed,
    engine.TLSFailed: TLSFailed,
    engine.ProxyFailed: ProxyFailed,
    engine.ReadTimeout: ReadTimeout,
    engine.TotalTimeout: TotalTimeout,
    engine.WriteTimeout: WriteTimeout,
    engine.ReadFailed: ReadFailed,
    engine.WriteFailed: WriteFailed,
    engine.ProtocolError: ProtocolError,
    engine.InvalidRequest: InvalidRequest,
}


def public(error: LLMPoolError) -> LLMPoolError:
    """The httpx face of ``error``: same message, same ``__cause__``. What has one is returned as it is.

    The engine's error is what the face was made from, not its cause: raise the face ``from face.__cause__``.
    """
    if isinstance(error, httpx.HTTPError):
        return error
    kind = next((_FACES[kind] for kind in type(error).__mro__ if kind in _FACES), TransportFailed)
    face = kind(str(error))
    face.__cause__ = error.__cause__
    face.__suppress_context__ = True
    return face


_ADOPTED: dict[type[httpx.RequestError], type[LLMPoolError]] = {
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
def adopted() -> Iterator[None]:
    """Within it httpx's own errors, as a mock or a user's own transport raises them, become ours.

    Raises our error of the same kind, with the same message and request; its cause is httpx's error.
    """
    try:
        yield
    except LLMPoolError:
        raise
    except (httpx.TransportError, httpx.DecodingError) as error:
        kind = next((_ADOPTED[kind] for kind in type(error).__mro__ if kind in _ADOPTED), TransportFailed)
        ours = kind(str(error))
        if isinstance(ours, httpx.RequestError):
            ours._request = error._request
        raise ours from error
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"the URL cannot be used: {error}") from error
