"""The results of a call, as plain values: a whole answer, or the chunks of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_pool.engine.clock import monotonic
from llm_pool.providers.rate_limits import RateLimit, read_rate_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_pool.engine.request import Marks
    from llm_pool.providers.usage import Usage

__all__ = [
    "Choice",
    "Chunk",
    "Citation",
    "Completion",
    "Embeddings",
    "Timing",
    "ToolCall",
    "ToolCallPart",
    "timing_of",
]

_MAX_REPR = 60  # characters of a text in a repr


def _short_repr(text: str) -> str:
    return repr(text) if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]!r}... ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call that the model asks for.

    ``id``         the provider's id of this tool call, "" if the answer has none
    ``name``       the name of the tool, "" if the answer has none
    ``arguments``  JSON text as the model wrote it, perhaps invalid, or cut by ``max_tokens``; "{}" if the
                   answer has no arguments; free text for OpenAI's "custom" tools
    ``raw``        the provider's object for this tool call, parsed
    """

    id: str
    name: str
    arguments: str
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"ToolCall(id={self.id!r}, name={self.name!r}, arguments={_short_repr(self.arguments)})"


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """What one chunk of a stream adds to a tool call.

    ``index``      the position of the tool call in ``Completion.tool_calls``
    ``id``         the provider's id of the tool call, in the part that brings it; "" in other parts
    ``name``       the name of the tool, in the part that begins the call; "" in other parts
    ``arguments``  the next piece of the arguments; "" if the part has none
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def __repr__(self) -> str:
        start = f", id={self.id!r}, name={self.name!r}" if self.id or self.name else ""
        return f"ToolCallPart({self.index}{start}, arguments={_short_repr(self.arguments)})"


@dataclass(frozen=True, slots=True)
class Citation:
    """A source that the answer cites.

    ``url``    the address of the source; None if it has none, as a document in the request
    ``title``  the title of the source; None if the answer does not state it
    ``text``   the text that is cited from the source; "" if the answer does not state it
    ``raw``    the provider's object for this citation, parsed; a str where the provider sends only addresses
    """

    url: str | None = None
    title: str | None = None
    text: str = ""
    raw: Any = field(default=None, repr=False, compare=False)


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
class Choice:
    """One of the answers to a call that asked for several (OpenAI's parameter ``n``).

    ``index``          its position among the choices
    ``text``           its text
    ``finish_reason``  the reason why the model stopped, as the provider names it; None if it is not reported
    ``tool_calls``     the tool calls that the model asks for, in order
    ``reasoning``      the model's reasoning, "" if the answer has none
    ``refusal``        the model's words for why it does not answer, "" if it answers
    ``citations``      the sources that it cites
    ``message``        the model's turn as a message for the next call
    ``logprobs``       the provider's object with the log probabilities of the tokens; None if there is none
    ``audio``          the provider's object with the spoken answer; None if there is none
    """

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    citations: tuple[Citation, ...] = ()
    message: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    logprobs: Any = field(default=None, repr=False, compare=False)
    audio: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Choice({self.index}, {_short_repr(self.text)}, finish_reason={self.finish_reason!r})"


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
    ``headers``        the headers of the answer, by name in any case
    ``parsed``         the validated value of a call with a type as ``response_format``; None without a type,
                       and if the model calls tools
    ``choices_in``     returns the choices in ``raw``, from which the other attributes are read; None if the
                       answer is its text alone
    """

    text: str
    model: str | None = None
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    request_id: str | None = None
    timing: Timing | None = None
    raw: dict[str, Any] = field(default_factory=dict, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)
    parsed: Any = field(default=None, compare=False)
    choices_in: Callable[[dict[str, Any]], tuple[Choice, ...]] | None = field(default=None, compare=False)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers to a call that asked for several with OpenAI's parameter ``n``, otherwise one."""
        if self.choices_in is not None:
            return self.choices_in(self.raw)
        message = {"role": "assistant", "content": self.text}
        return (Choice(0, self.text, self.finish_reason, self.tool_calls, message=message),)

    @property
    def reasoning(self) -> str:
        """The model's reasoning before the answer, "" if the answer has none."""
        return self.choices[0].reasoning

    @property
    def refusal(self) -> str:
        """The model's words for why it does not answer, "" if it answers."""
        return self.choices[0].refusal

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The sources that the answer cites, in order."""
        return self.choices[0].citations

    @property
    def message(self) -> dict[str, Any]:
        """The model's turn as a message for the next call.

        It has the tool calls and all that the provider wants back, such as signatures of the reasoning.
        """
        return self.choices[0].message

    @property
    def logprobs(self) -> Any:
        """The provider's object with the log probabilities of the tokens; None if there is none."""
        return self.choices[0].logprobs

    @property
    def audio(self) -> dict[str, Any] | None:
        """The provider's object with the spoken answer; None if there is none."""
        return self.choices[0].audio

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the provider's headers say about its limits; None if they say nothing."""
        return read_rate_limit(self.headers)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        tools = f", tool_calls={len(self.tool_calls)}" if self.tool_calls else ""
        return (
            f"Completion({_short_repr(self.text)}, model={self.model!r}, "
            f"finish_reason={self.finish_reason!r}{tools}, usage={self.usage!r}, "
            f"request_id={self.request_id!r})"
        )


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of texts. If the texts were sent in several requests, the values are those of all together.

    ``vectors``     a vector for each text, in the order of the texts
    ``model``       the model that made them, as the provider names it; None if it is not reported
    ``usage``       the tokens of the texts; None if they are not reported
    ``request_id``  the provider's request id, of the last request; None if no header has one
    ``timing``      how long the parts of the call took, in seconds; None outside of a call
    ``raw``         the provider's answer, parsed, with the vectors as they were sent
    ``headers``     the headers of the answer to the last request, by name in any case
    """

    vectors: list[list[float]] = field(repr=False)
    model: str | None = None
    usage: Usage | None = None
    request_id: str | None = None
    timing: Timing | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the provider's headers say about its limits; None if they say nothing."""
        return read_rate_limit(self.headers)


class Chunk:
    """One event of a stream: what it adds to the answer. ``str(chunk)`` is its text.

    ``text``           the text that this event adds to the answer; "" if it adds none
    ``raw``            the provider's event, parsed
    ``finish_reason``  the reason why the model stopped, in the event that reports it; None in other events
    ``tool_calls``     what this event adds to tool calls; [] if it adds nothing
    ``reasoning``      the reasoning that this event adds; "" if it adds none
    ``refusal``        what this event adds to the refusal; "" if it adds nothing
    ``citations``      the sources that this event adds; () if it adds none
    ``usage``          the tokens of the call so far, in an event that reports them; None in other events
    ``index``          the position, among the choices, of the choice to which all this belongs
    """

    # A stream makes a chunk for each token. An instance of a frozen dataclass would take longer to make.
    __slots__ = (
        "_choices",
        "citations",
        "finish_reason",
        "index",
        "raw",
        "reasoning",
        "refusal",
        "text",
        "tool_calls",
        "usage",
    )

    # Defaults of keyword-only arguments would take longer.
    def __init__(  # noqa: PLR0917
        self,
        text: str,
        raw: dict[str, Any],
        finish_reason: str | None = None,
        tool_calls: list[ToolCallPart] | None = None,
        reasoning: str = "",
        refusal: str = "",
        citations: tuple[Citation, ...] = (),
        usage: Usage | None = None,
        index: int = 0,
        choices: tuple[Chunk, ...] = (),
    ) -> None:
        self.text = text
        self.raw = raw
        self.finish_reason = finish_reason
        self.tool_calls = tool_calls or []
        self.reasoning = reasoning
        self.refusal = refusal
        self.citations = citations
        self.usage = usage
        self.index = index
        self._choices = choices

    @property
    def choices(self) -> tuple[Chunk, ...]:
        """What this event adds to each choice, of a call that asked for several; otherwise the chunk itself.

        The other attributes are those of the first choice.
        """
        return self._choices or (self,)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        end = f", finish_reason={self.finish_reason!r}" if self.finish_reason else ""
        return f"Chunk({_short_repr(self.text)}{end})"
