"""An answer as it arrives: whole, or as bytes that are still coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from llm_pool.providers.base import Head

__all__ = ["Answer", "Source"]


class Answer(NamedTuple):
    """A response that was read to its end; ``body`` is decoded."""

    head: Head
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.head.status_code}>"  # the body may repeat the key, before the errors hide it


class Source(Protocol):
    """A response whose body is still coming."""

    head: Head

    def read(self) -> bytes:
        """The bytes since the last read, in a plain thread; ``b""`` at the body's end."""

    async def aread(self) -> bytes:
        """``read`` for any event loop."""

    def mark_complete(self) -> None:
        """Treat the response as complete: closing it now is not a cancellation."""

    def close(self) -> None:
        """Free the connection, without waiting for it. From any thread, any number of times."""

    async def aclose(self) -> None:
        """``close``; on the connection's own loop it takes effect at once."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """For finalizers: call ``function`` later, and not inside of whatever was interrupted."""
