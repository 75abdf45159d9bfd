"""What a call brings back: the whole answer, or its chunks as they come. Plain values."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_pool.engine.request import Marks

__all__ = ["Chunk", "Completion", "Timing", "ToolCall", "Usage", "timing_of"]

_SHOWN = 60  # characters of a text that a repr shows


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, as the provider counts them. ``raw`` holds whatever else it tells."""

    input_tokens: int = 0
    output_tokens: int = 0
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. ``arguments`` is JSON as the model wrote it, and may not be valid."""

    id: str
    name: str
    arguments: str

    def __repr__(self) -> str:
        return f"ToolCall(id={self.id!r}, name={self.name!r}, arguments={_short(self.arguments)})"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the parts of a call took, in seconds.

    The wait for a connection is ``queued`` and ``dialing`` together: ``dialing`` is what of it went into
    making one, ``queued`` the rest. The others count from the start of the call: the first byte of the
    answer, the first text of a stream, the end.
    """

    queued: float = 0.0
    dialing: float = 0.0
    first_byte: float | None = None
    first_token: float | None = None
    total: float = 0.0
    reused: bool = False


def timing_of(marks: Marks, first_token: float | None = None) -> Timing:
    """Marks of the monotonic clock as durations; ``first_token`` is a mark too.

    A call that has not ended lasts until now, and one that never got a connection was queued all the time.
    """
    began = marks.started
    ended = marks.ended or time.monotonic()
    waited = (marks.acquired or ended) - began
    return Timing(
        queued=max(0.0, waited - marks.dialing),
        dialing=marks.dialing,
        first_byte=marks.first_byte - began if marks.first_byte else None,
        first_token=None if first_token is None else first_token - began,
        total=ended - began,
        reused=marks.reused,
    )


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer. ``str(completion)`` is its text.

    ``raw`` is what the provider sent, parsed; for a stream, the same put together from its chunks.
    """

    text: str
    model: str | None = None
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    request_id: str | None = None
    timing: Timing | None = None
    raw: dict[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        tools = f", tool_calls={len(self.tool_calls)}" if self.tool_calls else ""
        return (
            f"Completion({_short(self.text)}, model={self.model!r}, "
            f"finish_reason={self.finish_reason!r}{tools}, usage={self.usage!r}, "
            f"request_id={self.request_id!r})"
        )


class Chunk:
    """A piece of a stream. ``str(chunk)`` is its text, which is "" where the piece carries none.

    ``raw`` is the provider's event, parsed. ``tool_calls`` are its parts of tool calls, as they came.
    A plain class with slots: a stream makes one for each token.
    """

    __slots__ = ("finish_reason", "raw", "text", "tool_calls")

    def __init__(
        self,
        text: str,
        raw: dict[str, Any],
        finish_reason: str | None = None,
        tool_calls: list[Any] | None = None,
    ) -> None:
        self.text = text
        self.raw = raw
        self.finish_reason = finish_reason
        self.tool_calls = tool_calls or []

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        end = f", finish_reason={self.finish_reason!r}" if self.finish_reason else ""
        return f"Chunk({_short(self.text)}{end})"
