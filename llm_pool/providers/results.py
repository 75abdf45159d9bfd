"""The results of a call, as plain values: a whole answer, or the chunks of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_pool.engine.clock import monotonic

if TYPE_CHECKING:
    from llm_pool.engine.request import Marks

__all__ = ["Chunk", "Completion", "Timing", "ToolCall", "Usage", "repair_surrogates", "timing_of"]

_MAX_REPR = 60  # characters of a text in a repr


def _short_repr(text: str) -> str:
    return repr(text) if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]!r}... ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counts them.

    ``input_tokens``   tokens of the request; 0 if the answer has no valid number for them
    ``output_tokens``  tokens of the answer; 0 if the answer has no valid number for them
    ``raw``            the provider's usage object, parsed, with all its fields
    """

    input_tokens: int = 0
    output_tokens: int = 0
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call that the model asks for.

    ``id``         the provider's id of this tool call, "" if the answer has none
    ``name``       the name of the tool, "" if the answer has none
    ``arguments``  JSON text as the model wrote it, perhaps invalid; free text for OpenAI's "custom" tools
    """

    id: str
    name: str
    arguments: str

    def __repr__(self) -> str:
        return f"ToolCall(id={self.id!r}, name={self.name!r}, arguments={_short_repr(self.arguments)})"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the parts of a call took, in seconds. The wait for a connection is ``queued + dialing``.

    ``queued``       the wait for a connection, without the time in ``dialing``
    ``dialing``      the part of the wait during which a connection was being opened
    ``first_byte``   from the start of the call until the head of the answer had arrived; None without a head
    ``first_token``  from the start of the call to a stream's first chunk with text; None if no text arrived,
                     and for a call without a stream
    ``total``        from the start of the call to its end
    ``reused``       whether the connection had carried a call, or had been idle, before this call got it
    """

    queued: float = 0.0
    dialing: float = 0.0
    first_byte: float | None = None
    first_token: float | None = None
    total: float = 0.0
    reused: bool = False


def timing_of(marks: Marks, first_token: float | None = None) -> Timing:
    """Return the durations of a call from its marks.

    ``first_token`` is when the first text of a stream arrived, in seconds of the monotonic clock. If the call
    has not ended, the current time is used as its end. If the call never got a connection, its whole time
    counts as the wait for a connection.
    """
    started = marks.started
    ended = marks.ended or monotonic()
    waited = (marks.acquired or ended) - started
    return Timing(
        queued=max(0.0, waited - marks.dialing),
        dialing=marks.dialing,
        first_byte=marks.first_byte - started if marks.first_byte else None,
        first_token=None if first_token is None else first_token - started,
        total=ended - started,
        reused=marks.reused,
    )


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer. ``str(completion)`` is its text.

    ``text``           the text of the answer; "" if it has none, as when the model only calls tools
    ``model``          the model that answered, as the provider names it; None if it is not reported
    ``finish_reason``  the reason why the model stopped, as the provider names it (OpenAI: "stop", "length",
                       ...; Anthropic: "end_turn", "max_tokens", ...); None if it is not reported
    ``tool_calls``     the tool calls that the model asks for, in order
    ``usage``          the tokens of the call; None if they are not reported
    ``request_id``     the provider's request id, from the answer's headers; None if no header has one
    ``timing``         how long the parts of the call took, in seconds; None outside of a call
    ``raw``            the provider's answer, parsed; for a stream, the same object merged from its events
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
            f"Completion({_short_repr(self.text)}, model={self.model!r}, "
            f"finish_reason={self.finish_reason!r}{tools}, usage={self.usage!r}, "
            f"request_id={self.request_id!r})"
        )


class Chunk:
    """One event of a stream. ``str(chunk)`` is its text.

    ``text``           the text that this event adds to the answer; "" if it adds none
    ``raw``            the provider's event, parsed
    ``finish_reason``  the reason why the model stopped, in the event that reports it; None in other events
    ``tool_calls``     the parts of tool calls in this event, in the provider's format; [] if it has no parts
    """

    # A stream makes a chunk for each token. An instance of a frozen dataclass would take longer to make.
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
        return f"Chunk({_short_repr(self.text)}{end})"


def repair_surrogates(text: str) -> str:
    """Join the halves of surrogate pairs in ``text``, and replace a half without its other half by U+FFFD.

    JSON can contain such halves as escapes (RFC 8259, section 8.2); UTF-8 cannot encode them.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
