"""The interface of a provider: write requests, read answers, tell errors apart. No I/O."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from llm_pool.providers import errors, requests
from llm_pool.providers.errors import MISFIT
from llm_pool.providers.results import Usage
from llm_pool.redaction import redact

if TYPE_CHECKING:
    from llm_pool.exceptions import (
        APIError,
        APIStatusError,
        InvalidResponse,
        LLMPoolError,
        StreamInterrupted,
    )
    from llm_pool.providers.results import Chunk, Completion, Timing

__all__ = [
    "CompletionRequest",
    "Head",
    "HeaderView",
    "Messages",
    "Provider",
    "StreamReader",
    "read_completion",
    "usage_of",
]

Messages = str | Sequence[Mapping[str, Any]]

_TOO_MANY = 2**53  # from here on floats, which metrics are made of, do not count exactly


class Head(NamedTuple):
    """The head of an answer. ``headers`` has lower-case names, or does not mind (as ``httpx.Headers``).

    ``secrets`` are the keys that were sent: wherever the answer repeats one, errors show stars.
    """

    status_code: int
    headers: Mapping[str, str]
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Head {self.status_code}>"


class HeaderView(Mapping[str, str]):
    """Raw headers looked up by lower-case name, without a copy: of most answers one or two are ever read."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.encode("latin-1")
        size = len(wanted)
        for key, value in self._raw:
            if len(key) == size and key.lower() == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1").lower() for key, _ in self._raw))

    def __len__(self) -> int:
        return len(list(iter(self)))


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
                return str(redact(value, head.secrets))
        return None

    def error_from_response(self, head: Head, body: bytes) -> APIStatusError:
        """The error for an answer whose status is no success; ``body`` is decoded, and may be cut."""
        return errors.status_error_from(self._source(head), body)

    def error_from_object(self, head: Head, found: Any, partial: str = "") -> APIError:
        """The error for an error object where an answer was due; ``partial`` is the text before it."""
        return errors.api_error(self._source(head), found, partial)

    def invalid_response(
        self, head: Head, what: str, body: bytes | str, partial: str = ""
    ) -> InvalidResponse:
        """The error for an answer that is none; ``what`` names it: "an empty body"."""
        return errors.invalid_response(self._source(head), what, body, partial)

    def _source(self, head: Head) -> errors.Source:
        return errors.Source(self.name, head.status_code, head.headers, self.request_id(head), head.secrets)


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


def read_completion(
    provider: Provider,
    head: Head,
    body: bytes,
    timing: Timing | None,
    *,
    completion_of: Callable[[Any, str | None, Timing | None], Completion],
    misfit: Callable[[Any], str],
) -> Completion | LLMPoolError:
    """What ``completion_of`` makes of the object, or the error to raise: ``misfit`` words what came.

    The error is returned, so that its traceback has no frame in which ``body`` is seen.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        what = "what is not JSON" if body.strip() else "an empty body"
        return provider.invalid_response(head, what, body)
    if isinstance(raw, dict) and raw.get("error"):
        return provider.error_from_object(head, raw)
    try:
        return completion_of(raw, provider.request_id(head), timing)
    except MISFIT:
        return provider.invalid_response(head, misfit(raw), body)


def usage_of(raw: Any, read: str, written: str) -> Usage | None:
    """The usage that has these names for its counts; None where ``raw`` is no object."""
    if not isinstance(raw, dict):
        return None
    return Usage(_count(raw.get(read)), _count(raw.get(written)), raw)


def _count(value: Any) -> int:
    """A number of tokens; 0 where it is none: a count in error is no reason to lose an answer."""
    return value if type(value) is int and 0 <= value < _TOO_MANY else 0
