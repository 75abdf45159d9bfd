"""The errors in an answer: an HTTP status, an error object, or a body of the wrong format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from llm_pool.exceptions.base import LLMPoolError
from llm_pool.exceptions.calls import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "APIError",
    "APIStatusError",
    "AuthenticationFailed",
    "BadRequest",
    "Conflict",
    "InvalidOutput",
    "InvalidResponse",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "RateLimited",
    "RequestTooLarge",
    "ServerFailed",
    "StreamInterrupted",
    "UnprocessableRequest",
    "status_error",
]


class InvalidResponse(ProtocolError):
    """The answer does not have the format of the provider's API. For example, it is HTML, or empty.

    ``status_code``   the HTTP status; None if it is not known
    ``request_id``    the provider's request id; None if there is none
    ``content_type``  the ``Content-Type`` of the answer; None if there is none
    ``body``          the beginning of the answer's body, or of the event of a stream
    ``partial``       the text that a stream delivered before the error; "" without a stream
    """

    def __init__(
        self,
        message: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        *,
        content_type: str | None = None,
        body: str = "",
        partial: str = "",
        request: httpx.Request | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.args += (status_code, request_id)
        self.status_code = status_code
        self.request_id = request_id
        self.content_type = content_type
        self.body = body
        self.partial = partial


class InvalidOutput(LLMPoolError, httpx.DecodingError):
    """The words of the model do not fit the type of the output, or the parameters of a tool.

    ``request_id``  the provider's request id; None if there is none
    ``completion``  the answer; None for a tool call
    ``text``        the words that do not fit: the answer's text, or the arguments of a tool call
    ``problems``    a sentence for each problem, with its place
    """

    def __init__(
        self,
        message: str = "",
        request_id: str | None = None,
        *,
        completion: Any = None,
        text: str = "",
        problems: tuple[str, ...] = (),
        request: httpx.Request | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.args += (request_id,)
        self.request_id = request_id
        self.completion = completion
        self.text = text
        self.problems = problems


class StreamInterrupted(LLMPoolError, httpx.RemoteProtocolError):
    """A stream ended or failed before the provider had marked the answer as complete.

    Also raised by each step after one that was cancelled, interrupted or failed.

    ``request_id``  the provider's request id; None if there is none
    ``partial``     the text that the stream delivered until then
    """

    def __init__(
        self,
        message: str = "",
        request_id: str | None = None,
        *,
        partial: str = "",
        request: httpx.Request | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.args += (request_id,)
        self.request_id = request_id
        self.partial = partial


class APIError(LLMPoolError, httpx.HTTPError):
    """The provider answered with an error: an HTTP status outside 2xx, or an error object with a 2xx status.

    ``status_code``  the HTTP status; by default that of the class, or 0 if the class has none
    ``code``         the provider's error code; None if there is none
    ``request_id``   the provider's request id; None if there is none
    ``type``         the provider's error type; None if there is none. The argument is ``kind``
    ``body``         the body of the answer, or the event of a stream; parsed if it is JSON
    ``partial``      the text that a stream delivered before the error; "" without a stream
    """

    status_code: int = 0

    def __init__(
        self,
        message: str = "",
        status_code: int | None = None,
        code: str | int | None = None,
        request_id: str | None = None,
        *,
        kind: str | None = None,
        body: Any = None,
        partial: str = "",
        request: httpx.Request | None = None,
    ) -> None:
        super().__init__(message, request=request)
        if status_code is not None:
            self.status_code = status_code
        self.args += (self.status_code, code, request_id)
        self.code = code
        self.type = kind
        self.request_id = request_id
        self.body = body
        self.partial = partial


class APIStatusError(APIError, httpx.HTTPStatusError):
    """The provider answered with an HTTP status outside 2xx.

    ``retry_after``  seconds to wait before the next try; None if the provider's answer does not state them
    ``response``     the answer as an ``httpx.Response``
    ``request``      the ``httpx.Request``; reading it raises RuntimeError if it was not set
    ``advice``       what to do about an error of this class; in the message if ``retry_after`` is None
    """

    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str = "",
        status_code: int | None = None,
        code: str | int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        **details: Any,
    ) -> None:
        super().__init__(message, status_code, code, request_id, **details)
        self.args += (retry_after,)
        self.retry_after = retry_after
        self._headers = [
            (name, value) for name, value in (headers or {}).items() if name.lower() not in _FRAMING
        ]
        self._content = content
        self._response: httpx.Response | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, args, state = super().__reduce__()
        return rebuild, args, {**state, "_response": None}  # it has the request, and is made again when read

    @property
    def response(self) -> httpx.Response:
        """The answer as an ``httpx.Response``. Its body is the part that the error keeps."""
        if self._response is None:
            headers = [(_as_sent(name), _as_sent(value)) for name, value in self._headers]
            self._response = httpx.Response(
                self.status_code, headers=headers, content=self._content, request=self._request
            )
        return self._response

    @response.setter
    def response(self, response: httpx.Response) -> None:
        self._response = response


# Headers that do not describe the kept body, which is neither compressed nor chunked.
_FRAMING = {"content-encoding", "content-length", "transfer-encoding"}


def _as_sent(text: str) -> bytes:
    """Return a header's name or value as the bytes that the server sent. httpx would accept only ASCII."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")  # httpx has decoded ``text`` as UTF-8, and will do so again


class BadRequest(APIStatusError):
    """400: the provider does not accept the request."""

    status_code = 400
    advice = "Correct the request."


class AuthenticationFailed(APIStatusError):
    """401: the key is missing, wrong or revoked."""

    status_code = 401
    advice = "Check the pool's API_KEY."


class PermissionDenied(APIStatusError):
    """403: the key is valid, but has no permission for this request."""

    status_code = 403
    advice = "Check what this API key may do, and from where."


class NotFound(APIStatusError):
    """404: there is no such model or path."""

    status_code = 404
    advice = "Check the name of the model, and the pool's BASE_URL."


class Conflict(APIStatusError):
    """409: the request conflicts with another one."""

    status_code = 409
    advice = "Try again."


class RequestTooLarge(APIStatusError):
    """413: the request is larger than the provider accepts."""

    status_code = 413
    advice = "Send less."


class UnprocessableRequest(APIStatusError):
    """422: the request is well formed, but the provider cannot process it."""

    status_code = 422
    advice = "Correct the request."


class RateLimited(APIStatusError):
    """429: too many requests or tokens for now, or the quota is used up."""

    status_code = 429
    advice = "Try again later, or check the account's quota."


class ServerFailed(APIStatusError):
    """5xx: the provider, or a gateway in front of it, failed."""

    status_code = 500
    advice = "Try again later."


class Overloaded(ServerFailed):
    """503 or 529: the provider has too many requests from all its users."""

    status_code = 503


_BY_STATUS: dict[int, type[APIStatusError]] = {
    kind.status_code: kind
    for kind in (
        BadRequest,
        AuthenticationFailed,
        PermissionDenied,
        NotFound,
        Conflict,
        RequestTooLarge,
        UnprocessableRequest,
        RateLimited,
        Overloaded,
    )
}
_BY_STATUS[529] = Overloaded  # Anthropic's


def status_error(status_code: int) -> type[APIStatusError]:
    """Return the class of the error for a status outside 2xx."""
    return _BY_STATUS.get(status_code, ServerFailed if status_code >= 500 else APIStatusError)
