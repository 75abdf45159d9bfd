"""A random answer, and what the answers of all APIs have in common: texts, arguments, bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["RandomAnswer", "arguments_of", "cut", "merged", "random_text"]

JSON = dict[str, Any]

# What breaks readers: separators of lines that are none of an event stream, characters of no width, pairs of
# surrogates, the syntax of JSON and of event streams, words that an error or the end of a stream has.
_PARTS = [
    *"aZ 9.,\n\r\t\0\x7f\x1b\"\\/{}[]:'<&é中가ß",
    *("\u0085", "\u00ad", "\u2028", "\u2029", "\u200b", "\u200d", "\u202e", "\ufeff", "\ufffd", "\uffff"),
    *("😀", "\U0001d4b3", "\U0010ffff", "e\u0301", "👩\u200d👩\u200d👧", "🇩🇪"),
    *("\r\n\r\n", "data: ", "[DONE]", "error", '{"error": 1}', "\\u00", "\\ud83d", "null", "event: ping\n"),
]
_KEYS = ["", "a", "index", "type", "id", "name", "text", "error", "content", "😀", "a.b"]


@dataclass(frozen=True)
class RandomAnswer:
    """An answer in both shapes.

    ``whole``    without a stream
    ``events``   the same as a stream: its events, with the end marker of the API
    ``choices``  how many answers the request asks for
    """

    whole: JSON
    events: list[JSON | str]
    choices: int = 1

    def body(self, random: Random) -> bytes:
        """The answer without a stream, in one of the many spellings of JSON."""
        return _as_json(random, self.whole).encode()

    def frames(self, random: Random) -> list[bytes]:
        """The events as bytes, in one of the many spellings of JSON and of event streams."""
        end = random.choice(["\n", "\n", "\r\n", "\r"])
        return [f"{_comment(random, end)}{_framed(random, event, end)}".encode() for event in self.events]

    def stream(self, random: Random) -> list[bytes]:
        """The frames, cut at random bytes."""
        body, pieces = b"".join(self.frames(random)), []
        while body:
            size = random.choice([1, 2, 7, 40, 400, 4000])
            pieces.append(body[:size])
            body = body[size:]
        return pieces


def _framed(random: Random, event: JSON | str, end: str) -> str:
    data = event if isinstance(event, str) else _as_json(random, event)
    kind = event.get("type") if isinstance(event, dict) else None
    name = f"event: {kind}{end}" if kind else ""
    return f"{name}data:{random.choice([' ', ''])}{data}{end}{end}"


def _comment(random: Random, end: str) -> str:
    return f": keep-alive{end}{end}" if random.random() < 0.05 else ""


def _as_json(random: Random, value: Any) -> str:
    separators = random.choice([(", ", ": "), (",", ":")])
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, separators=separators)
    # UTF-8 cannot encode half a character: only an escape can.
    return text if _is_encodable(text) else json.dumps(value, separators=separators)


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def random_text(random: Random, most: int = 9) -> str:
    """Make a text of one to ``most`` parts."""
    return "".join(random.choices(_PARTS, k=random.randint(1, most)))


def cut(random: Random, text: str, *, between_halves: bool = True) -> list[str]:
    """Cut a text into pieces, as the deltas of a stream bring it.

    With ``between_halves`` sometimes between the halves of a surrogate pair too: escapes can carry them.
    """
    units = [text[at : at + 1] for at in range(len(text))]
    if between_halves and random.random() < 0.3:
        encoded = text.encode("utf-16-le")
        units = [
            encoded[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(encoded), 2)
        ]
    pieces = []
    while units:
        size = random.choice([1, 2, 3, 8, 20])
        pieces.append("".join(units[:size]))
        units = units[size:]
    return pieces


def _random_value(random: Random, depth: int = 3) -> Any:
    """Make any JSON value."""
    scalars = [None, True, False, 0, -1, 2**53 + 1, 10**30, 0.5, -1.5e-7, 1e300]
    kind = random.choice(["scalar", "text", "list", "rows", "object"] if depth else ["scalar", "text"])
    if kind == "scalar":
        return random.choice(scalars)
    if kind == "text":
        return random_text(random, 4)
    if kind == "list":
        return [_random_value(random, depth - 1) for _ in range(random.randrange(4))]
    if kind == "rows":  # that look like the parts of one another
        return [{"index": 0, "a": number} for number in range(random.randint(2, 3))]
    return _random_object(random, depth - 1)


def _random_object(random: Random, depth: int = 3) -> JSON:
    """Make an object of up to four values."""
    return {random.choice(_KEYS): _random_value(random, depth) for _ in range(random.randrange(5))}


def arguments_of(random: Random) -> str:
    """Make the arguments of a tool call: an object, as the JSON text that the model writes."""
    return _as_json(random, _random_object(random))


def merged(random: Random, *sequences: list[Any]) -> Iterator[Any]:
    """Yield the items of all sequences, each sequence in its order."""
    left = [list(sequence) for sequence in sequences if sequence]
    while left:
        chosen = random.choice(left)
        yield chosen.pop(0)
        left = [sequence for sequence in left if sequence]
