"""What goes out and what comes back, as plain values."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from .config import Origin, Timeouts
from .scope import CancelScope

__all__ = ["Headers", "Marks", "Principal", "Request", "WholeResponse", "for_whom"]

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One HTTP request. ``body`` None means that it follows piece by piece, through ``Exchange.write``.

    The headers go out as they are, ``Host`` and the framing (RFC 9112, section 6) among them. ``scope`` is
    for callers who may call it off from elsewhere before the head of its response has come.
    """

    origin: Origin
    method: bytes
    target: bytes
    headers: Headers = field(repr=False)  # they carry the key, and a repr is what tracebacks show
    body: bytes | None = field(default=b"", repr=False)
    timeouts: Timeouts = Timeouts()
    scope: CancelScope | None = field(default=None, repr=False)

    @property
    def replayable(self) -> bool:
        """Whether it may be sent twice: only its caller can say so, with an idempotency key."""
        return self.body is not None and any(name.lower() == b"idempotency-key" for name, _ in self.headers)


@dataclass(slots=True)
class Marks:
    """When the parts of a call took place, in seconds of the monotonic clock; ``dialing`` is a duration.

    What has not taken place is 0.0. ``sent`` and ``received`` are bytes of the bodies, ``replays`` how often
    the call was sent again.
    """

    started: float
    dialing: float = 0.0
    acquired: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    reused: bool = False
    replays: int = 0
    sent: int = 0
    received: int = 0

    def restart(self) -> None:
        """The same call is sent again."""
        self.replays += 1
        self.acquired = self.ended = 0.0


class Principal(Protocol):
    """Who has a call made, and wants to know how far it came, should it fail."""

    marks: Marks | None


for_whom: ContextVar[Principal | None] = ContextVar("llm_pool_principal", default=None)
"""Is given the marks of each call that starts in this context."""


@dataclass(slots=True)
class WholeResponse:
    """A response read to its end."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    marks: Marks
