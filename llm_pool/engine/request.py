"""What goes out and what comes back, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import Origin, Timeouts
from .scope import CancelScope

__all__ = ["Headers", "Marks", "Request", "WholeResponse"]

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Marks:
    """When the parts of a call took place, in seconds of the monotonic clock; ``dialing`` is a duration.

    A part that has not taken place is 0.0. ``sent`` and ``received`` are bytes of the bodies, ``replays`` is
    how often the request was sent again.

    The marks travel with the request: the caller keeps them, and the engine writes them.
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

    def start(self, now: float, size: int) -> None:
        """The call starts, with ``size`` bytes of body so far. A redirect starts anew with the same marks."""
        self.started, self.sent = now, size
        self.dialing = self.acquired = self.first_byte = self.ended = 0.0
        self.reused = False
        self.replays = self.received = 0

    def restart(self) -> None:
        """The same request is sent again."""
        self.replays += 1
        self.acquired = self.ended = 0.0


@dataclass(slots=True)
class Request:
    """One HTTP request. A ``body`` of None follows piece by piece, through ``Exchange.write``.

    The headers go out as they are, ``Host`` and the framing (RFC 9112, section 6) among them. ``scope``
    cancels the request from elsewhere before the head of its response has come. ``marks`` are filled in by
    the engine.
    """

    origin: Origin
    method: bytes
    target: bytes
    headers: Headers = field(repr=False)  # they carry the key, and tracebacks show reprs
    body: bytes | None = field(default=b"", repr=False)
    timeouts: Timeouts = Timeouts()
    scope: CancelScope | None = field(default=None, repr=False)
    marks: Marks = field(default_factory=Marks, repr=False)

    @property
    def replayable(self) -> bool:
        """Whether it may be sent twice: it has an idempotency key, and its body is all there."""
        return self.body is not None and any(name.lower() == b"idempotency-key" for name, _ in self.headers)


@dataclass(slots=True)
class WholeResponse:
    """A response that was read to its end."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    marks: Marks
