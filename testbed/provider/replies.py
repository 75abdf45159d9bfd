"""What a test has scripted for one request: an answer, perhaps with a fault; an error; or bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from testbed.provider.api import Event
from testbed.provider.quirks import apply, as_answered
from testbed.provider.sending import Response, pause

if TYPE_CHECKING:
    from testbed.board import Gate
    from testbed.provider.answers import Answer
    from testbed.provider.api import APIRequest
    from testbed.provider.errors import APIError
    from testbed.provider.quirks import Quirk
    from testbed.scripted import Script

__all__ = ["CutBody", "Data", "Failure", "Fault", "Played", "RawBody", "RawEvents", "Reply", "Scripted"]


class Scripted(ABC):
    """What a test has scripted for one request."""

    def fits(self, request: APIRequest) -> bool:
        """Whether it can answer this request."""
        return True

    @abstractmethod
    def response(self, request: APIRequest) -> Response:
        """The response to this request. Raises ValueError if there can be none."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong in the middle of a stream.

    ``after``       how many pieces of the answer come before it
    ``rest``        what is sent then, in place of the rest
    ``unstreamed``  what answers a request without a stream
    """

    after: int
    rest: Callable[[APIRequest], list[Event]]
    unstreamed: Scripted


@dataclass(frozen=True, kw_only=True)
class Reply(Scripted):
    """A model's answer.

    ``gap``         what is waited for before each piece of a stream: seconds, or a gate
    ``heartbeats``  seconds between the heartbeats that are sent while waiting; None for no heartbeats
    ``fault``       what goes wrong
    """

    answer: Answer
    gap: float | Gate | str = 0.0
    heartbeats: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    quirks: tuple[Quirk, ...] = ()
    fault: Fault | None = None

    def fits(self, request: APIRequest) -> bool:
        return request.api.generates

    def response(self, request: APIRequest) -> Response:
        if self.fault and not request.stream:
            return self.fault.unstreamed.response(request)
        request = as_answered(self.quirks, request)
        if request.stream:
            events = self._paced(apply(self.quirks, self._events(request), request), request)
        else:
            events = apply(self.quirks, [request.api.whole(self.answer, request)], request)
        return Response(events, 200, self.headers, request)

    def _events(self, request: APIRequest) -> list[Event]:
        events = request.api.events(self.answer, request)
        if self.fault is None:
            return events
        pieces = [number for number, event in enumerate(events) if request.api.is_piece(event)]
        if self.fault.after > len(pieces):
            raise ValueError(
                f"A fault after {self.fault.after} pieces, but the answer has only {len(pieces)}."
            )
        ends = [pieces[0] if pieces else 0, *(number + 1 for number in pieces)]
        return [*events[: ends[self.fault.after]], *self.fault.rest(request)]

    def _paced(self, events: list[Event], request: APIRequest) -> list[Event]:
        if self.gap == 0:
            return events
        wait = pause(self.gap, request.api.heartbeat, self.heartbeats)
        return [each for event in events for each in ([wait] * request.api.is_piece(event) + [event])]


@dataclass(frozen=True)
class Failure(Scripted):
    """An error as a status, in the API's own JSON."""

    error: APIError
    headers: Mapping[str, str] = field(default_factory=dict)
    quirks: tuple[Quirk, ...] = ()

    def response(self, request: APIRequest) -> Response:
        request = as_answered(self.quirks, replace(request, stream=False))
        events = apply(self.quirks, [request.api.error(self.error)], request)
        return Response(events, request.api.status(self.error), self.headers, request)


@dataclass(frozen=True)
class RawEvents(Scripted):
    """An event stream of these events, whatever the request asks for. Objects are framed as the API does."""

    events: tuple[Event, ...]
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request: APIRequest) -> Response:
        return Response(list(self.events), 200, self.headers, replace(request, stream=True))


@dataclass(frozen=True)
class RawBody(Scripted):
    """A body of these bytes, or of this JSON; its Content-Type is JSON unless the headers have another."""

    body: Event
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request: APIRequest) -> Response:
        return Response([self.body], self.status, self.headers, replace(request, stream=False))


@dataclass(frozen=True)
class CutBody(Scripted):
    """The first half of the JSON of an answer, then ``end``: what ends the connection, or nothing."""

    answer: Answer
    end: list[Event]

    def response(self, request: APIRequest) -> Response:
        body = request.encode(request.api.whole(self.answer, request))
        return Response([body[: len(body) // 2], *self.end], 200, {}, request)


@dataclass(frozen=True)
class Played(Scripted):
    """A script that is played after the request was read, after a head with ``status`` if there is one."""

    script: Script
    status: int | None = None

    def response(self, request: APIRequest) -> Response:
        return Response([self.script], self.status, {}, request)


@dataclass(frozen=True)
class Data(Scripted):
    """The answer of an API that generates no text: vectors or models; None for what the API makes itself."""

    api: str
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    quirks: tuple[Quirk, ...] = ()

    def fits(self, request: APIRequest) -> bool:
        return request.api.name == self.api

    def response(self, request: APIRequest) -> Response:
        request = as_answered(self.quirks, replace(request, stream=False))
        events = apply(self.quirks, [request.api.whole(self.data, request)], request)
        return Response(events, 200, self.headers, request)
