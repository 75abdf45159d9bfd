"""The head of an answer, as the readers of providers see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Head", "HeaderView"]


class Head(NamedTuple):
    """The head of an answer, with what a reader of the body must know about the request.

    ``status_code``  the HTTP status
    ``headers``      the headers by lower-case name
    ``secrets``      the keys in the request; errors show "***" where the answer repeats a key
    ``choices``      how many answers the request asked for, with OpenAI's parameter ``n``
    """

    status_code: int
    headers: Mapping[str, str]
    secrets: tuple[str, ...] = ()
    choices: int = 1

    def __repr__(self) -> str:
        return f"<Head {self.status_code}>"


class HeaderView(Mapping[str, str]):
    """A mapping of raw headers by name, in any case.

    A header is decoded only when it is looked up, because most calls look up only one or two. If several
    headers have the same name, the value is that of the first.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of the header ``name``, otherwise ``default``."""
        encoded = name.lower().encode("latin-1", "replace")
        size = len(encoded)
        for key, value in self._raw:
            if len(key) == size and key.lower() == encoded:
                return value.decode("latin-1")
        return default

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1").lower() for key, _ in self._raw))

    def __len__(self) -> int:
        return len(list(iter(self)))
