"""What a provider is: it words requests, reads answers, and tells errors apart. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from llm_pool.providers import answers, requests

if TYPE_CHECKING:
    from llm_pool.completions import Chunk, Completion, Timing
    from llm_pool.exceptions import APIError, APIStatusError, InvalidResponse, StreamInterrupted

__all__ = ["CompletionRequest", "Head", "Messages", "Provider", "StreamReader"]

Messages = str | Sequence[Mapping[str, Any]]


class Head(NamedTuple):
    """The head of an answer. ``headers`` has lower-case names, or does not mind (as ``httpx.Headers``).

    ``secrets`` are the keys that were sent: wherever the answer repeats one, errors show stars.
    """

    status_code: int
    headers: Mapping[str, str]
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Head {self.status_code}>"


class CompletionRequest(NamedTuple):
    """A POST: ``path`` is relative to the pool's BASE_URL, ``body`` is still to be encoded."""

    path: str
    body: dict[str, Any]


class Provider(ABC):
    """One API. Stateless, and so shared by all threads and loops."""

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
        """What every request carries, without the key's header where there is no key."""

    @abstractmethod
    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """``params`` go into the body unchanged. Raises ``InvalidMessages`` and ``InvalidParameter``."""

    @abstractmethod
    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """The answer with status 2xx. Raises ``InvalidResponse``, and ``APIError`` for an error in a 200."""

    @abstractmethod
    def stream_reader(self, head: Head) -> StreamReader:
        """A reader for the body of one streamed answer with status 2xx."""

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """JSON in UTF-8. Raises ``InvalidMessages`` and ``InvalidParameter``, naming what cannot be sent."""
        return requests.encode(body)

    def request_id(self, head: Head) -> str | None:
        """By what name the provider knows this exchange."""
        for name in self.request_id_headers:
            if value := head.headers.get(name):
                return str(answers.redact(value, head.secrets))
        return None

    def error_from_response(self, head: Head, body: bytes) -> APIStatusError:
        """The error for an answer whose status is no success; ``body`` is decoded, and may be cut."""
        return answers.status_error_from(self._source(head), body)

    def error_from_object(self, head: Head, found: Any, partial: str = "") -> APIError:
        """The error for an error object where an answer was due; ``partial`` is the text before it."""
        return answers.api_error(self._source(head), found, partial)

    def invalid_response(
        self, head: Head, what: str, body: bytes | str, partial: str = ""
    ) -> InvalidResponse:
        """The error for an answer that is none; ``what`` names it: "an empty body"."""
        return answers.invalid_response(self._source(head), what, body, partial)

    def _source(self, head: Head) -> answers.Source:
        return answers.Source(self.name, head.status_code, head.headers, self.request_id(head), head.secrets)


class StreamReader(ABC):
    """Reads one streamed answer, and puts it together on the way."""

    finished: bool = False
    """The provider has said that the answer is complete, or has failed: the rest is of no interest."""

    @abstractmethod
    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that ``data`` completes. Raises ``InvalidResponse``, ``EventTooLarge`` and ``APIError``.

        Where chunks came before such an error they are returned, and the reader is ``finished``: the error is
        raised by whatever is called next, at the latest ``completion()``.
        """

    @abstractmethod
    def end(self) -> list[Chunk]:
        """The body has ended as HTTP has it end: the last chunks.

        Raises ``StreamInterrupted`` where the provider had not said that the answer is complete.
        """

    @abstractmethod
    def completion(self, timing: Timing | None = None) -> Completion:
        """The whole answer, once ``finished``. Raises the error that ended the stream, if one did."""

    @property
    @abstractmethod
    def partial(self) -> str:
        """The text so far."""

    @abstractmethod
    def interruption(self, reason: str) -> StreamInterrupted:
        """The error for a body that broke off; ``reason`` is half a sentence: "the connection broke"."""
