"""An answer of a provider: read to its end, or open: its body is still arriving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from llm_pool.providers.base import Head

__all__ = ["Answer", "OpenAnswer"]


class Answer(NamedTuple):
    """An answer that was read to its end.

    ``head``  status code, headers, and the keys that errors must hide
    ``body``  all bytes of the body, decompressed
    """

    head: Head
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.head.status_code}>"  # without the body: it may repeat the key


class OpenAnswer(Protocol):
    """An answer whose body is still arriving; its ``head`` is complete."""

    head: Head

    def read(self) -> bytes:
        """Wait for more of the body, in a plain thread, and return it; ``b""`` at the end of the body.

        Raises LLMPoolError.
        """

    async def aread(self) -> bytes:
        """``read`` for any event loop."""

    def mark_complete(self) -> None:
        """Treat the answer as complete: closing it now is not a cancellation."""

    def close(self) -> None:
        """Release the connection, without waiting for it. From any thread, any number of times."""

    async def aclose(self) -> None:
        """``close``; on the connection's own loop it takes effect at once."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the connection's event loop, soon.

        For finalizers: they interrupt other code, and must not run ``function`` in the middle of it.
        """
