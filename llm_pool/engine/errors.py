"""The engine's errors. ``llm_pool.transports.errors`` gives each its httpx face."""

from __future__ import annotations

import os

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
    "WriteFailed",
    "WriteTimeout",
    "reason",
]


class LLMPoolError(Exception):
    """The root of every error this package raises."""


class PoolTimeout(LLMPoolError):
    """No connection could be had within the pool timeout. The message says what the pool looked like."""


class PoolFull(PoolTimeout):
    """As many callers wait as may wait (``max_waiting``); this one was refused at once."""


class PoolClosed(LLMPoolError):
    """The pool was closed before or during the call."""


class ConnectFailed(LLMPoolError):
    """No connection could be made."""


class ConnectTimeout(ConnectFailed):
    """No connection could be made within the connect timeout."""


class DNSFailed(ConnectFailed):
    """The host's name has no address."""


class TLSFailed(ConnectFailed):
    """The TLS handshake failed: nothing of the request was sent."""


class ProxyFailed(ConnectFailed):
    """The proxy did not open a tunnel."""


class ReadTimeout(LLMPoolError):
    """The server sent nothing for longer than the read timeout."""


class WriteTimeout(LLMPoolError):
    """The server took nothing of the request for longer than the write timeout."""


class TotalTimeout(ReadTimeout):
    """The call took longer than the total timeout."""


class ReadFailed(LLMPoolError):
    """The connection broke while its response was read."""


class WriteFailed(LLMPoolError):
    """The connection broke while the request was written."""


class ProtocolError(LLMPoolError):
    """The server broke the rules of HTTP."""


class InvalidRequest(LLMPoolError):
    """The request cannot be sent as it is: nothing of it was sent."""


def reason(error: Exception) -> str:
    """Why the system refused, in its own words and without addresses, for a message of ours."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
