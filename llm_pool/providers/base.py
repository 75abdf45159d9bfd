"""The interface of a provider: one API's requests, answers and errors. No I/O.

To use an API of your own, subclass ``Provider`` and ``StreamReader``, and set ``PROVIDER`` in
``settings.LLM_POOL`` to the dotted path of the ``Provider``. For an API that is almost OpenAI's, subclass
``llm_pool.providers.openai.OpenAI`` instead. The pool calls the methods in this order:

1. ``completion_request(...)`` and ``encode(...)`` make the path and the body, ``headers(key)`` the headers.
2. A status outside 200 to 299: ``error_from_response(head, body)``, for every kind of call.
3. A call without a stream: ``parse_completion(head, body, timing)``.
4. A stream: ``stream_reader(head)`` makes its reader. ``feed(data)`` takes each piece of the body until
   ``finished`` is true, and ``end()`` is called if the body ends before that. Then ``completion(timing)``
   returns the whole answer. If the connection breaks instead, ``interruption(reason)`` makes the error.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from llm_pool.providers import errors, requests
from llm_pool.providers.errors import SHAPE_ERRORS
from llm_pool.providers.results import Completion, Usage
from llm_pool.redaction import redact

if TYPE_CHECKING:
    from llm_pool.exceptions import (
        APIError,
        APIStatusError,
        InvalidResponse,
        LLMPoolError,
        StreamInterrupted,
    )
    from llm_pool.providers.results import Chunk, Timing

__all__ = [
    "CompletionRequest",
    "Head",
    "HeaderView",
    "JSONProvider",
    "Messages",
    "Provider",
    "StreamReader",
    "usage_of",
]

Messages = str | Sequence[Mapping[str, Any]]

_MAX_COUNT = 2**53  # metrics are floats, and floats count exactly up to here


class Head(NamedTuple):
    """The head of an answer.

    ``status_code``  the HTTP status
    ``headers``      the headers; a name is found in lower case
    ``secrets``      the keys that the request carried; errors show "***" wherever the answer repeats one
    """

    status_code: int
    headers: Mapping[str, str]
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Head {self.status_code}>"


class HeaderView(Mapping[str, str]):
    """Raw headers as a mapping with lower-case names.

    It copies nothing: of most answers only one or two headers are read.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        encoded = name.encode("latin-1")
        size = len(encoded)
        for key, value in self._raw:
            if len(key) == size and key.lower() == encoded:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1").lower() for key, _ in self._raw))

    def __len__(self) -> int:
        return len(list(iter(self)))


class CompletionRequest(NamedTuple):
    """A POST to be sent.

    ``path``  the path below the pool's BASE_URL, in ASCII, with a slash at its start: "/chat/completions"
    ``body``  the body, before ``Provider.encode``
    """

    path: str
    body: dict[str, Any]


class Provider(ABC):
    """One API. A subclass is made without arguments, and keeps no state: threads and event loops share it.

    A subclass sets these attributes:

    ``name``                the API's name in error messages, logs and metrics: "openai"
    ``base_url``            the BASE_URL of the API's own server, without a slash at its end
    ``base_url_env``        the environment variable that is read if the settings have no BASE_URL
    ``api_key_env``         the environment variable that is read if the settings have no API_KEY
    ``completion_path``     the path of a completion below BASE_URL: "/chat/completions". The check of the
                            settings refuses a BASE_URL that ends with it
    ``models_path``         the path that ``llmpool_check`` reads to test the key: a GET whose answer is
                            ``{"data": [{"id": model}, ...]}``
    ``key_headers``         the lower-case names of headers that can carry a key. If HEADERS has one of them,
                            ``api_key_env`` is not read, and errors hide the key in that header
    ``request_id_headers``  the lower-case names of headers with the provider's id of the request; the first
                            one that an answer has counts

    The abstract methods have no default. The others fit any API with JSON bodies, and with errors such as
    ``{"error": {"message": ..., "type": ..., "code": ...}}``. An error must not contain a key:
    ``error_from_response``, ``error_from_object`` and ``invalid_response`` replace those in ``head.secrets``.
    """

    name: ClassVar[str]
    base_url: ClassVar[str]
    base_url_env: ClassVar[str]
    api_key_env: ClassVar[str]
    completion_path: ClassVar[str]
    models_path: ClassVar[str] = "/models"
    key_headers: ClassVar[frozenset[str]] = frozenset({"authorization", "api-key"})
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-request-id", "request-id")

    @abstractmethod
    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return the headers of every request: names in ASCII, of any case, and values in latin-1.

        ``api_key`` is None if the request carries no key: leave out its header then. The pool sets ``Host``,
        ``User-Agent`` and the headers about the body, and ``Content-Type: application/json`` if there is no
        other. The user's HEADERS replace headers of the same name.
        """

    @abstractmethod
    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """Return the request for one call. Do not change the arguments: they are the caller's.

        ``messages``  as the caller gave them, not yet checked
        ``model``     MODEL from the settings, None if it is not set; ``params["model"]`` replaces it
        ``params``    the caller's keyword arguments, which go into the body unchanged
        ``stream``    whether the answer is to be a stream

        Raises ``InvalidMessages`` or ``InvalidParameter`` for what the API certainly refuses.
        """

    @abstractmethod
    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """Return the completion in an answer with a status from 200 to 299.

        ``body`` is the whole body, without any content coding. ``timing`` goes into the completion unchanged.

        Raises ``InvalidResponse`` for a body that the API does not describe, and ``APIError`` for an error
        object: make them with ``invalid_response`` and ``error_from_object``.
        """

    @abstractmethod
    def stream_reader(self, head: Head) -> StreamReader:
        """Return a new reader for the body of one streamed answer with a status from 200 to 299."""

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """Return ``body`` as JSON in UTF-8.

        Raises ``InvalidMessages`` or ``InvalidParameter`` with the path of the value that cannot be encoded.
        """
        return requests.encode(body)

    def request_id(self, head: Head) -> str | None:
        """Return the provider's id of the request from the answer's headers, None if they have none."""
        for name in self.request_id_headers:
            if value := head.headers.get(name):
                return str(redact(value, head.secrets))
        return None

    def error_from_response(self, head: Head, body: bytes) -> APIStatusError:
        """Return the error for an answer with a status outside 200 to 299.

        ``body`` has no content coding. Of a streamed call it may be only the beginning, of about 64 KiB.
        """
        return errors.status_error_from(self._error_context(head), body)

    def error_from_object(self, head: Head, value: Any, partial: str = "") -> APIError:
        """Return the error for an error object, parsed, in an answer with a status from 200 to 299.

        ``partial`` is the text of the answer before the error.
        """
        return errors.api_error(self._error_context(head), value, partial)

    def invalid_response(
        self, head: Head, what: str, body: bytes | str, partial: str = ""
    ) -> InvalidResponse:
        """Return the error for an answer that the API does not describe.

        ``what`` is a phrase for it: "an empty body". The message shows the beginning of ``body``. ``partial``
        is the text of the answer so far.
        """
        return errors.invalid_response(self._error_context(head), what, body, partial)

    def _error_context(self, head: Head) -> errors.ErrorContext:
        return errors.ErrorContext(
            self.name, head.status_code, head.headers, self.request_id(head), head.secrets
        )


class StreamReader(ABC):
    """Reads the body of one streamed answer, and builds the whole answer from it.

    One reader serves one stream, and is called by one thread or task at a time. Bound the memory that a
    reader keeps for an event that does not end: raise ``EventTooLarge``.
    """

    finished: bool = False
    """Set it to True when the provider has marked the answer as complete, or an error has ended it.

    The pool then calls ``completion``, and reads no more of the body.
    """

    @abstractmethod
    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that ``data`` completes: [] if it completes none, or the reader is ``finished``.

        ``data`` is the next piece of the body, without any content coding; a piece can end anywhere, within
        a character too.

        Raises ``InvalidResponse``, ``EventTooLarge`` or ``APIError``. If ``data`` completes chunks before the
        error, return them, set ``finished``, and raise the error from ``completion``.
        """

    @abstractmethod
    def end(self) -> list[Chunk]:
        """Return the last chunks. Called once the body has ended in order, if the reader is not ``finished``.

        Set ``finished`` if the answer is complete, and raise ``StreamInterrupted`` if it is not.
        """

    @abstractmethod
    def completion(self, timing: Timing | None = None) -> Completion:
        """Return the whole answer. Called once the reader is ``finished``.

        ``timing`` goes into the completion unchanged. Raises the error that ended the stream, if one did.
        """

    @property
    @abstractmethod
    def partial(self) -> str:
        """The text of the answer so far."""

    @abstractmethod
    def interruption(self, reason: str) -> StreamInterrupted:
        """Return the error for a body that broke off. ``reason`` is a clause: "the connection broke"."""


class JSONProvider(Provider):
    """A provider whose answer to a call without a stream is one JSON object."""

    @abstractmethod
    def _build_completion(self, raw: Any, request_id: str | None, timing: Timing | None) -> Completion:
        """Return the completion in a parsed body. Raises one of ``SHAPE_ERRORS`` if it has another shape."""

    @abstractmethod
    def _describe_mismatch(self, raw: Any) -> str:
        """Return a phrase for a parsed body of another shape: "no choices in its JSON"."""

    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """See ``Provider.parse_completion``."""
        result = self._completion_or_error(head, body, timing)
        del body  # error reports show the local variables of each frame, and the body may repeat the key
        if isinstance(result, Completion):
            return result
        raise result

    def _completion_or_error(
        self, head: Head, body: bytes, timing: Timing | None
    ) -> Completion | LLMPoolError:
        """Return the error instead of raising it: its traceback then has no frame with ``body``."""
        try:
            raw = json.loads(body)
        except (ValueError, RecursionError):
            what = "what is not JSON" if body.strip() else "an empty body"
            return self.invalid_response(head, what, body)
        if isinstance(raw, dict) and raw.get("error"):
            return self.error_from_object(head, raw)
        try:
            return self._build_completion(raw, self.request_id(head), timing)
        except SHAPE_ERRORS:
            return self.invalid_response(head, self._describe_mismatch(raw), body)


def usage_of(raw: Any, input_name: str, output_name: str) -> Usage | None:
    """Return the usage in ``raw``, an answer's usage object; None if it is not an object.

    ``input_name`` and ``output_name`` are the names of its two counts.
    """
    if not isinstance(raw, dict):
        return None
    return Usage(_count(raw.get(input_name)), _count(raw.get(output_name)), raw)


def _count(value: Any) -> int:
    """Return a number of tokens, 0 for an invalid one: a wrong count is no reason to lose an answer."""
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0
