"""What no report of an error may show."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Hidden", "without_frames"]

E = TypeVar("E", bound=BaseException)


class Hidden(str):
    """Text without a repr: reports of an error show that of every local variable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def without_frames(error: E) -> E:
    """The error, and what led to it, less the frames they came through: of code that holds what was sent."""
    seen: set[int] = set()
    led: BaseException | None = error
    while led is not None and id(led) not in seen:
        seen.add(id(led))
        led.__traceback__ = None
        led = led.__cause__ or led.__context__
    return error
