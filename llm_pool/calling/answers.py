"""A provider's answer: an ``Answer`` was read to its end, the body of an ``OpenAnswer`` is still arriving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from llm_pool.providers.base import Head

__all__ = ["Answer", "OpenAnswer"]


class Answer(NamedTuple):
    """A provider's answer that was read to its end.

    ``head``  status code, headers, and the keys that errors must hide
    ``body``  all bytes of the body, decompressed
    """

    head: Head
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.head.status_code}>"  # the body is left out: it may contain the key


class OpenAnswer(Protocol):
    """An answer whose ``head`` is complete and whose body is still arriving."""

    head: Head

    def read(self) -> bytes:
        """Wait for the next bytes of the body and return them; ``b""`` at its end. For a plain thread.
        Raises LLMPoolError.
        """

    async def aread(self) -> bytes:
        """``read`` for async code, on any event loop."""

    def mark_complete(self) -> None:
        """Treat the answer as complete: closing it now is not a cancellation."""

    def close(self) -> None:
        """Release the connection and return at once. Can be called from any thread, and more than once."""

    async def aclose(self) -> None:
        """``close`` for async code. On the connection's own event loop it takes effect before it returns."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the connection's event loop, at one of its next turns.

        For finalizers: Python runs them in the middle of other code, where ``function`` must not run.
        """
