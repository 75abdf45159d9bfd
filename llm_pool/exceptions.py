"""Every error that this package raises: each is an ``LLMPoolError``, and an httpx error of its kind.

Before an answer    PoolTimeout PoolFull PoolClosed ConnectFailed ConnectTimeout DNSFailed TLSFailed
                    ProxyFailed WriteTimeout WriteFailed TransportFailed
Nothing was sent    InvalidRequest InvalidMessages InvalidParameter UnsupportedScheme
While it comes      ReadTimeout TotalTimeout ReadFailed ProtocolError EventTooLarge StreamInterrupted
The answer itself   InvalidResponse APIError APIStatusError and one class for each status worth telling apart

Code written for httpx therefore goes on working: ``except httpx.ReadTimeout`` catches ``ReadTimeout``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BUSY",
    "APIError",
    "APIStatusError",
    "AuthenticationFailed",
    "BadRequest",
    "Conflict",
    "ConnectFailed",
    "ConnectTimeout",
    "DNSFailed",
    "EventTooLarge",
    "InvalidMessages",
    "InvalidParameter",
    "InvalidRequest",
    "InvalidResponse",
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
    "StreamInterrupted",
    "TLSFailed",
    "TotalTimeout",
    "TransportFailed",
    "UnprocessableRequest",
    "UnsupportedScheme",
    "WriteFailed",
    "WriteTimeout",
    "copy_of",
    "reason",
    "status_error",
    "visitor_message",
    "with_article",
]


class LLMPoolError(Exception):
    """The root of every error that this package raises."""


class PoolTimeout(LLMPoolError, httpx.PoolTimeout):
    """No connection came free within the pool timeout. The message describes the pool's state."""


class PoolFull(PoolTimeout):
    """The queue already held ``max_waiting`` callers, so the call failed at once."""


class PoolClosed(LLMPoolError, httpx.TransportError):
    """The pool was closed before or during the call."""


class ConnectFailed(LLMPoolError, httpx.ConnectError):
    """No connection could be made."""


class ConnectTimeout(ConnectFailed, httpx.ConnectTimeout):
    """No connection could be made within the connect timeout."""


class DNSFailed(ConnectFailed):
    """The host's name has no address."""


class TLSFailed(ConnectFailed):
    """The TLS handshake failed: nothing of the request was sent."""


class ProxyFailed(ConnectFailed, httpx.ProxyError):
    """The proxy did not open a tunnel."""


class ReadTimeout(LLMPoolError, httpx.ReadTimeout):
    """The server sent nothing for longer than the read timeout."""


class WriteTimeout(LLMPoolError, httpx.WriteTimeout):
    """The server accepted nothing of the request for longer than the write timeout."""


class TotalTimeout(ReadTimeout):
    """The call took longer than the total timeout."""


class ReadFailed(LLMPoolError, httpx.ReadError):
    """The connection broke while the response was read."""


class WriteFailed(LLMPoolError, httpx.WriteError):
    """The connection broke while the request was written."""


class ProtocolError(LLMPoolError, httpx.RemoteProtocolError):
    """The server broke the rules of HTTP, or of the API that it offers."""


class InvalidRequest(LLMPoolError, httpx.LocalProtocolError):
    """The request cannot be sent as it is: nothing of it was sent."""


class UnsupportedScheme(InvalidRequest, httpx.UnsupportedProtocol):
    """The URL begins with neither ``http://`` nor ``https://``."""


class TransportFailed(LLMPoolError, httpx.TransportError):
    """A mock or a transport of the user's own failed with an httpx error that has no counterpart here."""


class EventTooLarge(ProtocolError):
    """One event of a stream, or one line, is larger than is kept (32 MiB): why a stream was interrupted."""


class InvalidMessages(InvalidRequest, ValueError):
    """The messages have the wrong shape, or hold what JSON or UTF-8 cannot carry. Nothing was sent."""


class InvalidParameter(InvalidRequest, ValueError):
    """A parameter cannot be sent: JSON cannot carry it, the call itself decides it, or no API knows it."""


class InvalidResponse(ProtocolError):
    """The provider answered something that its API does not promise: HTML, nothing, no choices.

    ``body`` is the beginning of what it sent instead, ``partial`` the text a stream had brought by then.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        content_type: str | None = None,
        body: str = "",
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.request_id = request_id
        self.content_type = content_type
        self.body = body
        self.partial = partial


class StreamInterrupted(LLMPoolError, httpx.RemoteProtocolError):
    """The stream ended before its provider said so. ``partial`` is the text that had come by then."""

    def __init__(self, message: str, *, partial: str = "", request_id: str | None = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.request_id = request_id


class APIError(LLMPoolError, httpx.HTTPError):
    """The provider answered with an error, be it by its status or by an error object inside a 200.

    ``code`` and ``type`` are the provider's own words; ``body`` is what it sent, parsed where it is JSON.
    ``partial`` is the text that a stream had brought when the error came.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | int | None = None,
        kind: str | None = None,
        request_id: str | None = None,
        body: Any = None,
        partial: str = "",
    ) -> None:
        httpx.HTTPError.__init__(self, message)
        self.status_code = status_code
        self.code = code
        self.type = kind
        self.request_id = request_id
        self.body = body
        self.partial = partial

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the class with the message alone.
        return _rebuild, (type(self), self.args), self.__dict__


class APIStatusError(APIError, httpx.HTTPStatusError):
    """The provider answered with a status that is no success.

    ``retry_after`` is how many seconds the provider asks to be left alone, None where it does not say.
    ``response`` is the answer as an ``httpx.Response``; ``request`` is there where a client has set it.
    """

    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        headers: Mapping[str, str],
        content: bytes = b"",
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        APIError.__init__(self, message, status_code=status_code, **details)
        self.retry_after = retry_after
        self._headers = [(name, value) for name, value in headers.items() if name.lower() not in _FRAMING]
        self._content = content
        self._response: httpx.Response | None = None

    @property
    def response(self) -> httpx.Response:
        """The answer as httpx would have given it: built on first need, from what was read of it."""
        if self._response is None:
            headers = [(_as_sent(name), _as_sent(value)) for name, value in self._headers]
            self._response = httpx.Response(
                self.status_code, headers=headers, content=self._content, request=self._request
            )
        return self._response

    @response.setter
    def response(self, response: httpx.Response) -> None:
        self._response = response


# They tell how the body came over the wire; the one that is kept is decoded and whole.
_FRAMING = {"content-encoding", "content-length", "transfer-encoding"}


def _as_sent(text: str) -> bytes:
    """A header's name or value in bytes: httpx would take a str for ASCII."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")  # httpx has guessed UTF-8, and will again


def _rebuild(kind: type[APIError], args: tuple[Any, ...]) -> APIError:
    error = kind.__new__(kind)
    error.args = args
    return error


class BadRequest(APIStatusError):
    """400: the provider does not take the request as it is."""

    advice = "Correct the request."


class AuthenticationFailed(APIStatusError):
    """401: the key is missing, wrong or revoked."""

    advice = "Check the pool's API_KEY."


class PermissionDenied(APIStatusError):
    """403: the key is good, but not for this."""

    advice = "Check what this API key may do, and from where."


class NotFound(APIStatusError):
    """404: there is no such model or path."""

    advice = "Check the name of the model, and the pool's BASE_URL."


class Conflict(APIStatusError):
    """409: another request is in the way of this one."""

    advice = "Try again."


class RequestTooLarge(APIStatusError):
    """413: the request is larger than the provider takes."""

    advice = "Send less."


class UnprocessableRequest(APIStatusError):
    """422: the request is well formed, and cannot be followed."""

    advice = "Correct the request."


class RateLimited(APIStatusError):
    """429: too many requests or tokens for now, or the quota is used up."""

    advice = "Try again later, or check the account's quota."


class ServerFailed(APIStatusError):
    """5xx: the provider, or something in front of it, failed."""

    advice = "Try again later."


class Overloaded(ServerFailed):
    """503 or 529: the provider has too much to do."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: RequestTooLarge,
    422: UnprocessableRequest,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}


def status_error(status_code: int) -> type[APIStatusError]:
    """The class for a status that is no success."""
    return _BY_STATUS.get(status_code, ServerFailed if status_code >= 500 else APIStatusError)


BUSY = "Too many requests are waiting for the model. Please try again in a few seconds."


def visitor_message(error: Exception) -> str:
    """A sentence for a site's visitor. The error's own message may describe provider, network and pool."""
    if isinstance(error, PoolTimeout):
        return BUSY
    if isinstance(error, StreamInterrupted):
        return "The answer broke off. Please try again."
    return "The model gave no answer. Please try again later."


def copy_of(error: LLMPoolError) -> LLMPoolError:
    """The same error for another caller: an exception keeps the traceback of the one that raised it."""
    copy = type(error)(str(error))
    copy.__cause__ = error.__cause__
    return copy


def reason(error: Exception) -> str:
    """The operating system's reason for ``error``, without addresses, for use in a message."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def with_article(value: Any) -> str:
    """The type of ``value`` with its article, for use in a message: "a str", "an int"; "None" for None."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
