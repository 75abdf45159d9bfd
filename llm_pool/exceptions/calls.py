"""The errors of a call without an answer: nothing was sent, or the connection failed."""

from __future__ import annotations

import httpx

from llm_pool.exceptions.base import LLMPoolError

__all__ = [
    "AnswerTooLarge",
    "ConnectFailed",
    "ConnectTimeout",
    "DNSFailed",
    "EventTooLarge",
    "InvalidMessages",
    "InvalidParameter",
    "InvalidRequest",
    "InvalidURL",
    "PoolClosed",
    "PoolFull",
    "PoolTimeout",
    "ProtocolError",
    "ProxyFailed",
    "ReadFailed",
    "ReadTimeout",
    "StreamConsumed",
    "TLSFailed",
    "TokenTimeout",
    "TooManyRedirects",
    "TotalTimeout",
    "TransportFailed",
    "UnsupportedEventLoop",
    "UnsupportedScheme",
    "WriteFailed",
    "WriteTimeout",
]


class PoolTimeout(LLMPoolError, httpx.PoolTimeout):
    """The call got no connection within the pool timeout. The message describes the pool's state."""


class PoolFull(PoolTimeout):
    """The queue already held ``max_waiting`` callers, so the call failed at once."""


class PoolClosed(LLMPoolError, httpx.TransportError):
    """The pool, the response or the connection's event loop was closed before or during the call."""


class ConnectFailed(LLMPoolError, httpx.ConnectError):
    """No connection could be made."""


class ConnectTimeout(ConnectFailed, httpx.ConnectTimeout):
    """No connection could be made within the connect timeout."""


class DNSFailed(ConnectFailed):
    """The name of the server or the proxy is not valid, or has no address."""


class TLSFailed(ConnectFailed):
    """The TLS handshake failed, or the TLS settings cannot be used. The server processed no request."""


class ProxyFailed(ConnectFailed, httpx.ProxyError):
    """The proxy did not open a tunnel, or the proxy's URL cannot be used."""


class ReadTimeout(LLMPoolError, httpx.ReadTimeout):
    """The server sent nothing for longer than the read timeout."""


class WriteTimeout(LLMPoolError, httpx.WriteTimeout):
    """The server accepted nothing of the request for longer than the write timeout."""


class TokenTimeout(ReadTimeout):
    """A stream delivered no content for longer than ``first_token`` or ``between_tokens``."""


class TotalTimeout(ReadTimeout):
    """The call took longer than the total timeout."""


class ReadFailed(LLMPoolError, httpx.ReadError):
    """The connection was lost. If the server closed it within a response, ``ProtocolError`` is raised."""


class WriteFailed(LLMPoolError, httpx.WriteError):
    """A mock or a user's own transport raised ``httpx.WriteError``. The engine raises ``ReadFailed``."""


class ProtocolError(LLMPoolError, httpx.RemoteProtocolError):
    """The server sent what HTTP or the provider's API does not allow, or closed within a response."""


class InvalidRequest(LLMPoolError, httpx.LocalProtocolError):
    """The request is not valid. Nothing was sent, unless a body sent in pieces has the wrong length."""


class UnsupportedScheme(InvalidRequest, httpx.UnsupportedProtocol):
    """The URL begins with neither ``http://`` nor ``https://``."""


class UnsupportedEventLoop(InvalidRequest, RuntimeError):
    """An async call was made where no event loop of asyncio runs. For example, under trio."""


class InvalidURL(InvalidRequest, httpx.InvalidURL):
    """The URL cannot be parsed."""


class TooManyRedirects(LLMPoolError, httpx.TooManyRedirects):
    """A request that follows redirects was redirected more than 20 times."""


class StreamConsumed(LLMPoolError, httpx.StreamConsumed):
    """A body that is a generator was to be sent again, for a redirect or an authentication, or read again."""


class TransportFailed(LLMPoolError, httpx.TransportError):
    """The event loop of the pool's connections cannot start or does not respond, or a transport failed.

    A transport is a mock's or a user's own; it raised an httpx error for which this package has no class.
    """


class AnswerTooLarge(ProtocolError):
    """An answer exceeds ``max_answer_bytes``. Callers of a stream get a StreamInterrupted with this cause."""


class EventTooLarge(ProtocolError):
    """An event of a stream exceeds 32 MiB. Callers get a StreamInterrupted with this error as its cause."""


class InvalidMessages(InvalidRequest, ValueError):
    """The messages have the wrong shape, or JSON in UTF-8 cannot encode them. Nothing was sent."""


class InvalidParameter(InvalidRequest, ValueError):
    """A parameter is missing, cannot be encoded, contradicts the called method, or is an option of an SDK."""
