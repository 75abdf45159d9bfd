"""What each API of the provider offers, and one request to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from testbed.connection import ServerConnection

if TYPE_CHECKING:
    from testbed.provider.answers import Answer
    from testbed.provider.errors import APIError

__all__ = ["API", "APIRequest", "Event", "as_json", "typed_event"]

Event = dict[str, Any] | list[Any] | bytes | Callable[[ServerConnection], Awaitable[None]]
"""A part of a response: JSON, which the API frames; bytes as they stand; a script that is played there."""


class API(Protocol):
    """One API: it turns an answer into whole JSON, and into the events of a stream."""

    name: str
    """Its name in quirks and errors."""
    generates: bool
    """Whether it answers with what a model writes; otherwise ``whole`` gets data of its own."""
    request_id_header: str
    """The header of the request id."""
    heartbeat: bytes
    """What the API sends to keep a silent stream open."""

    def whole(self, answer: Any, request: APIRequest) -> dict[str, Any]:
        """The answer as one JSON object."""

    def events(self, answer: Answer, request: APIRequest) -> list[Event]:
        """The answer as the events of a stream, with the end marker."""

    def frame(self, event: dict[str, Any] | list[Any]) -> bytes:
        """One event of a stream as bytes."""

    def is_piece(self, event: Event) -> bool:
        """Whether the event carries a piece of the answer."""

    def status(self, error: APIError) -> int:
        """The HTTP status of an error."""

    def error(self, error: APIError) -> dict[str, Any]:
        """The JSON of an error, as a body and as an event of a stream."""


@dataclass(frozen=True)
class APIRequest:
    """A request that an API answers.

    ``api``     the API
    ``body``    its JSON, parsed
    ``number``  how many requests came before it, plus one; answers have it in their ids
    ``stream``  whether the answer is sent as a stream
    """

    api: API
    body: dict[str, Any]
    number: int
    stream: bool

    @property
    def model(self) -> str:
        """The model that the request names."""
        return str(self.body.get("model") or "test-model")

    def encode(self, event: dict[str, Any] | list[Any] | bytes) -> bytes:
        """The bytes of an event: framed in a stream, otherwise plain JSON."""
        if isinstance(event, bytes):
            return event
        return self.api.frame(event) if self.stream else as_json(event)


def typed_event(event: dict[str, Any] | list[Any]) -> bytes:
    """An event of a stream whose line "event:" repeats the type in its JSON."""
    name = event.get("type", "message") if isinstance(event, dict) else "message"
    return f"event: {name}\n".encode() + b"data: " + as_json(event) + b"\n\n"


def as_json(value: Any) -> bytes:
    """JSON in UTF-8, without escapes of other characters than JSON demands."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
