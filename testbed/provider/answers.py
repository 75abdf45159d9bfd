"""What a model answers, without the words of an API. Each API's file turns it into JSON and into events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

__all__ = ["Answer", "AnswerOptions", "Citation", "Tokens", "ToolCall", "answer"]

ARGUMENTS_PIECE = 8  # characters of a tool call's arguments in one event


class Tokens(NamedTuple):
    """The tokens of an answer, as the API's own fields count them.

    ``input``      OpenAI's ``prompt_tokens``, Anthropic's ``input_tokens``
    ``output``     OpenAI's ``completion_tokens``, Anthropic's ``output_tokens``
    ``cached``     tokens read from a cache: a part of ``input`` with OpenAI, beside it with Anthropic
    ``reasoning``  the part of ``output`` that is reasoning
    """

    input: int = 10
    output: int = 5
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class ToolCall:
    """A tool call that the model asks for.

    ``name``       the name of the tool
    ``arguments``  an object, or the JSON text as it stands; a stream sends it in pieces of 8 characters
    ``id``         the id; None for "call_1", "call_2", ... by the position of the call
    """

    name: str
    arguments: Mapping[str, Any] | str = ""
    id: str | None = None

    @property
    def text(self) -> str:
        """The arguments as JSON text."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)

    @property
    def pieces(self) -> list[str]:
        """The text, as a stream sends it."""
        return [self.text[at : at + ARGUMENTS_PIECE] for at in range(0, len(self.text), ARGUMENTS_PIECE)]


@dataclass(frozen=True)
class Citation:
    """A source that the answer cites: its address, its title, and the text that is cited."""

    url: str
    title: str = "A source"
    text: str = "cited text"


class AnswerOptions(TypedDict, total=False):
    """What an answer can have besides its text.

    ``reasoning``           the reasoning before the text, whole or in pieces
    ``signature``           the signature of Anthropic's reasoning
    ``redacted_reasoning``  encrypted reasoning, of Anthropic's API and of Responses
    ``refusal``             why the model does not answer, whole or in pieces
    ``tool_calls``          the tool calls, in order
    ``citations``           the sources, or their addresses
    ``finish_reason``       OpenAI's words "stop", "length", "tool_calls", "content_filter" are translated for
                            the other APIs, any other word is sent as it stands; None for what fits the answer
    ``usage``               the tokens, also as a tuple; None if the answer does not report them
    ``logprobs``            a log probability for each piece of the text
    ``audio``               OpenAI's object for a spoken answer: id, data, transcript, expires_at
    ``model``               the model that answers; None for the one that the request names
    """

    reasoning: str | Sequence[str]
    signature: str
    redacted_reasoning: str
    refusal: str | Sequence[str]
    tool_calls: Sequence[ToolCall]
    citations: Sequence[Citation | str]
    finish_reason: str | None
    usage: Tokens | tuple[int, ...] | None
    logprobs: Sequence[float] | None
    audio: Mapping[str, Any] | None
    model: str | None


@dataclass(frozen=True)
class Answer:
    """An answer, checked and complete: see ``AnswerOptions``.

    ``choices`` has the pieces of each choice's text. All the rest belongs to the first choice.
    """

    choices: tuple[tuple[str, ...], ...]
    reasoning: tuple[str, ...]
    signature: str
    redacted_reasoning: str
    refusal: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    citations: tuple[Citation, ...]
    finish_reason: str
    usage: Tokens | None
    logprobs: tuple[float, ...] | None
    audio: Mapping[str, Any] | None
    model: str | None

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(self.choices[0])


def answer(choices: Iterable[str | Iterable[str]], options: AnswerOptions) -> Answer:
    """Make an answer from the text of each choice, whole or in pieces, and its options.

    Raises ValueError if there is not one log probability for each piece of the text.
    """
    texts = tuple(_pieces(text) for text in choices) or ((),)
    calls, usage = options.get("tool_calls", ()), options.get("usage", Tokens())
    logprobs = options.get("logprobs")
    if logprobs is not None and len(logprobs) != len(texts[0]):
        raise ValueError(
            f"{len(logprobs)} logprobs for {len(texts[0])} pieces of text; give one for each piece."
        )
    return Answer(
        choices=texts,
        reasoning=_pieces(options.get("reasoning", "")),
        signature=options.get("signature", "c2lnbmF0dXJl"),
        redacted_reasoning=options.get("redacted_reasoning", ""),
        refusal=_pieces(options.get("refusal", "")),
        tool_calls=tuple(
            ToolCall(call.name, call.arguments, f"call_{number}" if call.id is None else call.id)
            for number, call in enumerate(calls, 1)
        ),
        citations=tuple(
            Citation(each) if isinstance(each, str) else each for each in options.get("citations", ())
        ),
        finish_reason=options.get("finish_reason") or ("tool_calls" if calls else "stop"),
        usage=None if usage is None else Tokens(*usage),
        logprobs=None if logprobs is None else tuple(logprobs),
        audio=options.get("audio"),
        model=options.get("model"),
    )


def _pieces(text: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(text, str):
        return (text,) if text else ()
    return tuple(text)
