"""The two forms of a provider's answer: ``Answer``, read to its end, and ``OpenAnswer``, still arriving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from llm_pool.providers.base import Head

__all__ = ["Answer", "OpenAnswer"]


class Answer(NamedTuple):
    """A provider's answer that was read to its end.

    ``head``  status code, headers, and the keys that errors must not show
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
        """Return the next bytes of the body, or ``b""`` at its end. Blocks the thread until bytes arrive.

        Raises LLMPoolError if the call fails. Raises RuntimeError for an answer of the async httpx client.
        """

    async def aread(self) -> bytes:
        """``read`` for async code, on any event loop."""

    def mark_complete(self) -> None:
        """Treat the answer as complete: closing it now is not a cancellation."""

    def close(self) -> None:
        """Release the connection and return at once. Can be called from any thread, and more than once."""

    async def aclose(self) -> None:
        """``close`` for async code."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` soon, on the connection's event loop. Do nothing if that loop has ended.

        For finalizers: Python runs them in the middle of other code, where ``function`` must not run. The
        answer of a mock has no connection: ``function`` is called at once.
        """
