"""The errors that this package raises. Each is an ``LLMPoolError``, and also an httpx error of the same kind.

Before an answer    PoolTimeout PoolFull PoolClosed ConnectFailed ConnectTimeout DNSFailed TLSFailed
                    ProxyFailed WriteTimeout WriteFailed TransportFailed
Nothing was sent    InvalidRequest InvalidMessages InvalidParameter InvalidURL UnsupportedScheme
                    UnsupportedEventLoop
During an answer    ReadTimeout TokenTimeout TotalTimeout ReadFailed ProtocolError AnswerTooLarge
                    EventTooLarge StreamInterrupted
Of ``request``      TooManyRedirects StreamConsumed
The answer itself   InvalidResponse InvalidOutput APIError APIStatusError, and a subclass of that for each
                    common status

So code written for httpx needs no change: ``except httpx.ReadTimeout`` catches ``ReadTimeout``.
"""

from __future__ import annotations

from llm_pool.exceptions.answers import (
    APIError,
    APIStatusError,
    AuthenticationFailed,
    BadRequest,
    Conflict,
    InvalidOutput,
    InvalidResponse,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    StreamInterrupted,
    UnprocessableRequest,
    status_error,
)
from llm_pool.exceptions.base import (
    LLMPoolError,
    copy_of,
)
from llm_pool.exceptions.calls import (
    AnswerTooLarge,
    ConnectFailed,
    ConnectTimeout,
    DNSFailed,
    EventTooLarge,
    InvalidMessages,
    InvalidParameter,
    InvalidRequest,
    InvalidURL,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    ProtocolError,
    ProxyFailed,
    ReadFailed,
    ReadTimeout,
    StreamConsumed,
    TLSFailed,
    TokenTimeout,
    TooManyRedirects,
    TotalTimeout,
    TransportFailed,
    UnsupportedEventLoop,
    UnsupportedScheme,
    WriteFailed,
    WriteTimeout,
)
from llm_pool.exceptions.messages import (
    BUSY,
    in_parentheses,
    reason,
    visitor_message,
    with_article,
)

__all__ = [
    "BUSY",
    "APIError",
    "APIStatusError",
    "AnswerTooLarge",
    "AuthenticationFailed",
    "BadRequest",
    "Conflict",
    "ConnectFailed",
    "ConnectTimeout",
    "DNSFailed",
    "EventTooLarge",
    "InvalidMessages",
    "InvalidOutput",
    "InvalidParameter",
    "InvalidRequest",
    "InvalidResponse",
    "InvalidURL",
    "LLMPoolError",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PoolClosed",
    "PoolFull",
    "PoolTimeout",
    "ProtocolError",
    "ProxyFailed",
    "RateLimited",
    "ReadFailed",
    "ReadTimeout",
    "RequestTooLarge",
    "ServerFailed",
    "StreamConsumed",
    "StreamInterrupted",
    "TLSFailed",
    "TokenTimeout",
    "TooManyRedirects",
    "TotalTimeout",
    "TransportFailed",
    "UnprocessableRequest",
    "UnsupportedEventLoop",
    "UnsupportedScheme",
    "WriteFailed",
    "WriteTimeout",
    "copy_of",
    "in_parentheses",
    "reason",
    "status_error",
    "visitor_message",
    "with_article",
]

for _name in __all__:
    if isinstance(vars()[_name], type):
        vars()[_name].__module__ = __name__  # tracebacks and pickles show the public module
