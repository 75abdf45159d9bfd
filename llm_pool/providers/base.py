"""The interface of a provider, which makes the requests of one API and reads its answers. No I/O.

To use an API of your own, subclass ``Provider`` and ``StreamReader``, and set ``PROVIDER`` in
``settings.LLM_POOL`` to the dotted path of the ``Provider``. For an API that is almost OpenAI's, subclass
``llm_pool.providers.openai.OpenAI`` instead. The pool calls the methods in this order:

1. ``for_url(base_url)`` returns the provider for the server of a pool. ``completion_request(...)`` and
   ``encode(...)`` make the path and the body, ``headers(key)`` the headers.
2. For an answer with a status outside 200 to 299, ``error_from_response(head, body)`` makes the error.
3. For any other answer without a stream, ``parse_completion(head, body, timing)`` returns the completion.
4. For a stream, ``stream_reader(head)`` makes a reader. The reader's ``feed(data)`` gets each piece of the
   body until ``finished`` is True. If the body ends before that, ``end()`` is called. Then
   ``completion(timing)`` returns the whole answer. If the connection breaks, ``interruption(reason)`` makes
   the error. But once ``is_complete`` is True, a connection that breaks or is silent does not matter:
   ``end()`` is called then, and after one second at the latest.

A ``Completion`` needs only its ``text``. The other attributes are what the provider gives it: for example
``headers=head.headers``, which ``rate_limit`` reads, and ``choices_in``, for the reasoning, the citations and
the turn to send back. A ``Chunk`` needs its ``text`` and ``raw``. ``docs/dialects.md`` has an example of a
subclass of ``OpenAI``.

For ``embed``, an API with embeddings has ``embedding_request(...)`` and ``parse_embeddings(...)`` instead of
steps 1 and 3. For a Python type as ``response_format``, an API with structured output has
``output_params(...)``, and for Python functions as ``tools`` an API with tools has ``tool_definition(...)``,
which are called before step 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from llm_pool.exceptions import InvalidRequest
from llm_pool.providers import errors, requests
from llm_pool.providers.head import Head
from llm_pool.providers.results import Completion
from llm_pool.redaction import redact

if TYPE_CHECKING:
    from llm_pool.exceptions import (
        APIError,
        APIStatusError,
        InvalidResponse,
        StreamInterrupted,
    )
    from llm_pool.providers.results import Chunk, Embeddings, Timing

__all__ = [
    "CompletionRequest",
    "EmbeddingInput",
    "Head",
    "Messages",
    "Provider",
    "StreamReader",
]

Messages = str | Sequence[Mapping[str, Any]]
EmbeddingInput = str | Sequence[int]

_OTHER_PROVIDER = 'add a pool with another PROVIDER to LLM_POOL, such as "openai", and call embed() on it'


class CompletionRequest(NamedTuple):
    """A POST request to be sent.

    ``path``  the path below the pool's BASE_URL, such as "/chat/completions": in ASCII, with a slash at its
              start
    ``body``  the body as a dict, which ``Provider.encode`` encodes later
    """

    path: str
    body: dict[str, Any]


class Provider(ABC):
    """One API. An instance takes no arguments and keeps no state of calls: threads and event loops share it.

    A subclass sets these attributes:

    ``name``                the API's name in error messages, logs and metrics, such as "openai"
    ``base_url``            the BASE_URL of the API's own server, without a slash at its end; "" if there is
                            none, so that each project must set BASE_URL
    ``base_url_env``        the environment variable that is read if the settings have no BASE_URL
    ``api_key_env``         the environment variable that is read if the settings have no API_KEY
    ``completion_path``     the path of a completion below BASE_URL, such as "/chat/completions". The check of
                            the settings refuses a BASE_URL that ends with this path
    ``models_path``         the path to which ``llmpool_check`` sends a GET request to test the key; the
                            answer is ``{"data": [{"id": model}, ...]}``
    ``lists_models``        whether the ids in that answer are the possible values of MODEL
    ``required_query``      the parameters that each URL needs: the name, and the environment variable that is
                            read if neither QUERY nor BASE_URL has a parameter of this name
    ``key_headers``         the lower-case names of headers that can carry a key. If HEADERS contains such a
                            header, ``api_key_env`` is not read, and errors do not show the header's key
    ``request_id_headers``  the lower-case names of headers that can contain the provider's request id, in
                            the order in which they are looked up
    ``max_embedding_inputs``, ``max_embedding_tokens``
                            how many texts a request for embeddings can have, and how many tokens all its
                            texts together; None for any number

    The methods that are not abstract work for any API with JSON bodies, and with errors such as
    ``{"error": {"message": ..., "type": ..., "code": ...}}``. An error must not contain a key:
    ``error_from_response``, ``error_from_object`` and ``invalid_response`` replace the keys in
    ``head.secrets``.
    """

    name: ClassVar[str]
    base_url: ClassVar[str]
    base_url_env: ClassVar[str]
    api_key_env: ClassVar[str]
    completion_path: ClassVar[str]
    models_path: str = "/models"
    lists_models: ClassVar[bool] = True
    required_query: tuple[tuple[str, str], ...] = ()
    key_headers: ClassVar[frozenset[str]] = frozenset({"authorization", "api-key"})
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-request-id", "request-id")
    max_embedding_inputs: ClassVar[int | None] = None
    max_embedding_tokens: ClassVar[int | None] = None

    def for_url(self, base_url: str) -> Self:
        """Return the provider for a server at ``base_url``, which is BASE_URL without its query.

        Returns ``self``. Override it if paths or ``required_query`` depend on BASE_URL: return a copy.
        """
        return self

    @abstractmethod
    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return the headers of every request: names in ASCII, of any case, and values in latin-1.

        If ``api_key`` is None, leave out the header for the key. The pool adds ``Host``, ``User-Agent``,
        ``Accept-Encoding`` and ``Content-Length``, and ``Content-Type: application/json`` if this method
        returns no ``Content-Type``. The user's HEADERS replace headers of the same name.
        """

    @abstractmethod
    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """Return the request for one call. Do not change the arguments: they belong to the caller.

        ``messages``  the caller's messages, not yet checked
        ``model``     MODEL from the settings, or None if it is not set; ``params["model"]`` replaces it
        ``params``    the caller's keyword arguments, which go into the body unchanged
        ``stream``    whether the answer is to be a stream

        Raises ``InvalidMessages`` or ``InvalidParameter`` for arguments that the API cannot accept.
        """

    @abstractmethod
    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """Return the completion in an answer with a status from 200 to 299.

        ``body`` is the whole body, not compressed. ``timing`` goes into the completion unchanged.

        Raises ``InvalidResponse`` for a body that does not have the API's format, and ``APIError`` for an
        error object: make these errors with ``invalid_response`` and ``error_from_object``.
        """

    @abstractmethod
    def stream_reader(self, head: Head) -> StreamReader:
        """Return a new reader for the body of one streamed answer with a status from 200 to 299."""

    def embedding_request(
        self, inputs: Sequence[EmbeddingInput], model: str | None, params: Mapping[str, Any]
    ) -> CompletionRequest:
        """Return the request for the vectors of ``inputs``. Do not change the arguments.

        ``inputs``  the texts, already checked: a list of ``str``, or of lists of tokens, not longer than the
                    limits ``max_embedding_inputs`` and ``max_embedding_tokens``
        ``model``   MODEL from the settings, or None if it is not set; ``params["model"]`` replaces it
        ``params``  the caller's keyword arguments, which go into the body unchanged

        Raises ``InvalidParameter`` for arguments that the API cannot accept, and ``InvalidRequest`` if the
        API has no embeddings, as this method does if a subclass does not override it.
        """
        raise self._has_no("embeddings", _OTHER_PROVIDER)

    def parse_embeddings(
        self, head: Head, body: bytes, count: int, timing: Timing | None = None
    ) -> Embeddings:
        """Return the vectors in an answer with a status from 200 to 299.

        ``count`` is the number of texts in the request. For the rest, and the errors, see
        ``parse_completion``; an answer with another number of vectors is an ``InvalidResponse``.
        """
        raise self._has_no("embeddings", _OTHER_PROVIDER)

    def output_params(self, name: str, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the parameters of a call whose answer is to be JSON that fits ``schema``.

        ``name``    the name of the output type, of letters, digits, "_" and "-"
        ``schema``  the JSON schema of an object, as pydantic makes it; do not change it

        The values are objects: they are merged with those of the caller. The result is cached. Raises
        ``InvalidParameter`` if the API cannot enforce ``schema``, and ``InvalidRequest`` if the API has no
        structured output, as this method does if a subclass does not override it.
        """
        raise self._has_no("structured output for a type", "give response_format in the form of its API")

    def tool_definition(self, name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the definition of a tool in the form of the API, an item of the parameter ``tools``.

        ``parameters`` is the JSON schema of an object; do not change it. ``description`` can be "". Raises
        ``InvalidRequest`` if the API has no tools, as this method does if a subclass does not override it.
        """
        raise self._has_no("form for functions in tools", "give tools in the form of its API")

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """Return ``body`` as JSON in UTF-8.

        Raises ``InvalidMessages`` or ``InvalidParameter`` with the path of the value that cannot be encoded.
        """
        return requests.encode(body)

    def request_id(self, head: Head) -> str | None:
        """Return the provider's request id from the headers of the answer, or None if no header has one."""
        for name in self.request_id_headers:
            if value := head.headers.get(name):
                return str(redact(value, head.secrets))
        return None

    def error_from_response(self, head: Head, body: bytes) -> APIStatusError:
        """Return the error for an answer with a status outside 200 to 299.

        ``body`` is not compressed. For a streamed call it may be only the first 64 KiB or so.
        """
        return errors.status_error_from(self._error_context(head), body)

    def error_from_object(self, head: Head, value: Any, partial: str = "") -> APIError:
        """Return the error for an error object in an answer with a status from 200 to 299.

        ``value`` is the parsed JSON of the body, or of the stream's event, that reports the error.
        ``partial`` is the text that a stream delivered before the error.
        """
        return errors.api_error(self._error_context(head), value, partial)

    def invalid_response(
        self, head: Head, what: str, body: bytes | str, partial: str = ""
    ) -> InvalidResponse:
        """Return the error for an answer that does not have the API's format.

        ``what`` says what was received, such as "an empty body". The message shows the beginning of ``body``.
        ``partial`` is the text that a stream delivered before the error.
        """
        return errors.invalid_response(self._error_context(head), what, body, partial)

    def _has_no(self, what: str, advice: str) -> InvalidRequest:
        return InvalidRequest(f"The provider {self.name!r} has no {what}; {advice}.")

    def _error_context(self, head: Head) -> errors.ErrorContext:
        return errors.ErrorContext(
            self.name, head.status_code, head.headers, self.request_id(head), head.secrets
        )


class StreamReader(ABC):
    """Reads the body of one streamed answer, and builds the whole answer from it.

    Each stream has its own reader, and one thread or task at a time calls it. Limit the size of an event that
    the reader keeps in memory: raise ``EventTooLarge`` for a larger event.
    """

    finished: bool = False
    """Set ``finished`` to True when the answer is complete, or when ``completion`` is to raise an error.

    The pool then calls ``completion``, and reads no more of the body.
    """

    is_complete: bool = False
    """Set ``is_complete`` to True when the provider has said that the answer is complete but more can follow.

    What can follow is, for example, the usage. The pool then reads the body for one second at most, and calls
    ``end`` at its end, or if the connection breaks.
    """

    @abstractmethod
    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that ``data`` completes; [] if it completes no chunk, or if ``finished`` is True.

        ``data`` is the next piece of the body, not compressed. A piece can end anywhere, even within a
        character.

        Raises ``InvalidResponse``, ``EventTooLarge`` or ``APIError``. If ``data`` completes chunks before the
        error, return them, set ``finished``, and raise the error from ``completion``.
        """

    @abstractmethod
    def end(self) -> list[Chunk]:
        """Return the last chunks. Called when the body has ended without an error and ``finished`` is False.

        Set ``finished`` to True if the answer is complete. If not, raise ``StreamInterrupted``; or
        ``InvalidResponse`` or ``APIError`` if the body is not a stream.
        """

    def is_content(self, chunk: Chunk) -> bool:
        """Return whether ``chunk`` is a part of the answer, such as text, reasoning or a tool call.

        Anything else is a keep-alive: it does not restart the timeouts ``first_token`` and
        ``between_tokens``.
        """
        return bool(chunk.text or chunk.reasoning or chunk.tool_calls or chunk.refusal or chunk.finish_reason)

    @abstractmethod
    def completion(self, timing: Timing | None = None) -> Completion:
        """Return the whole answer. Called after ``finished`` has become True.

        ``timing`` goes into the completion unchanged. If an error has ended the stream, raises that error.
        """

    @property
    @abstractmethod
    def partial(self) -> str:
        """The text of the answer so far."""

    @abstractmethod
    def interruption(self, reason: str) -> StreamInterrupted:
        """Return the error for an incomplete body, with the text so far.

        ``reason`` is a clause such as "the connection broke".
        """
