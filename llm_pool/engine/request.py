"""Requests and whole responses as plain values, and the times of the parts of a call."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_pool.exceptions import AnswerTooLarge

from .config import Timeouts
from .content_timer import ContentTimer
from .head import Headers, RequestHead
from .scope import CancelScope

__all__ = ["Marks", "Request", "WholeResponse", "answer_too_large"]

DEFAULT_TIMEOUTS = Timeouts()


@dataclass(slots=True)
class Marks:
    """When the parts of a call took place. The engine sets them. Times are seconds of the monotonic clock.

    The time of a part that has not taken place is 0.0.

    ``started``     when the caller made the call
    ``dialing``     seconds for which the call waited for the dial of its connection
    ``acquired``    when the call got a connection
    ``first_byte``  when the head of the response had arrived
    ``ended``       when the response was complete, or when the call failed
    ``reused``      whether the connection had carried a call, or had been idle, before it was given to this
                    call
    ``replays``     how often the request was sent again
    ``sent``        bytes of the request's body
    ``received``    bytes of the response's body, before decompression
    """

    started: float = 0.0
    dialing: float = 0.0
    acquired: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    reused: bool = False
    replays: int = 0
    sent: int = 0
    received: int = 0

    def reset(self) -> None:
        """Reset all marks. A redirect needs this: httpx uses the marks of the first request again."""
        self.started = self.dialing = self.acquired = self.first_byte = self.ended = 0.0
        self.reused = False
        self.replays = self.sent = self.received = 0

    def restart(self) -> None:
        """Count a replay. Reset ``acquired`` and ``ended``, which the replay sets again."""
        self.replays += 1
        self.acquired = self.ended = 0.0


class Request:
    """One HTTP request.

    ``head``           method, target and headers
    ``origin``         where to send it: the origin of ``head``
    ``body``           the whole body, or None if it follows piece by piece through ``Exchange.write``
    ``timeouts``       the timeouts of this call
    ``scope``          cancels ``Pool.open`` or ``Pool.open_sync`` before it returns, from another task or
                       thread; None if not needed
    ``marks``          when the parts of the call took place; set by the engine
    ``content_timer``  limits the waits for content, if the response is a model's stream; None for no limit

    Raises InvalidRequest if ``head`` does not frame ``body`` correctly.
    """

    __slots__ = ("body", "content_timer", "head", "marks", "origin", "scope", "timeouts")

    def __init__(
        self,
        head: RequestHead,
        body: bytes | None = b"",
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        *,
        scope: CancelScope | None = None,
        marks: Marks | None = None,
        content_timer: ContentTimer | None = None,
    ) -> None:
        if head.is_framed:
            head.check_body(body)
        self.head = head
        self.origin = head.origin
        self.body = body
        self.timeouts = timeouts
        self.scope = scope
        self.marks = marks or Marks()
        self.content_timer = content_timer

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent twice: it has its whole body, and an ``Idempotency-Key``."""
        return self.body is not None and self.head.idempotent

    def to(self, target: bytes) -> Request:
        """Return the same request for another path and query of its origin."""
        head = RequestHead(self.origin, self.head.method, target, self.head.headers)
        return Request(
            head,
            self.body,
            self.timeouts,
            scope=self.scope,
            marks=self.marks,
            content_timer=self.content_timer,
        )


@dataclass(slots=True)
class WholeResponse:
    """A response that was read to its end.

    ``status``   the HTTP status
    ``headers``  the headers of the exchange
    ``body``     the body, decompressed
    ``marks``    when the parts of the call took place
    ``coding``   the content coding of the body if it is not decompressed, for lack of a decoder; otherwise ""
    """

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    marks: Marks
    coding: str = ""


def answer_too_large(limit: int, sender: object) -> AnswerTooLarge:
    """Return the error for an answer of more than ``limit`` bytes, which is LIMITS["max_answer_bytes"].

    ``sender``: the origin, or the name of the provider.
    """
    return AnswerTooLarge(
        f'{sender} sent an answer of more than {limit} bytes, which is LIMITS["max_answer_bytes"]; '
        "raise it, or read the answer piece by piece with client.stream()"
    )
