"""What is asked of every client: a whole answer, or one as it comes; its text is what is handed on.

None is closed: its process ends when all is measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

__all__ = ["BODY", "KEY", "MESSAGES", "MODEL", "STREAM_BODY", "AsyncClient", "Client", "Target"]

KEY = "key"
MODEL = "test-model"
MESSAGES = [{"role": "user", "content": "Say hello."}]
BODY: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
STREAM_BODY = {**BODY, "stream": True}


@dataclass(frozen=True)
class Target:
    """Where the calls go. ``url`` ends in ``/v1``; ``ca_file`` is whom to trust there."""

    url: str
    ca_file: str | None = None
    http2: bool = False
    connections: int = 2500

    @property
    def completions(self) -> str:
        """The URL of chat completions."""
        return f"{self.url}/chat/completions"


class AsyncClient:
    """A client on an event loop, which runs already when it is made. A subclass has what its library can."""

    def __init__(self, target: Target) -> None:
        self.target = target

    async def start(self) -> None:
        """What the library does when its server starts; no connection is opened."""

    async def prewarm(self) -> None:
        """Open a connection before the first call, where the library can."""

    async def complete(self) -> str:
        """Make one call; the text of the answer."""
        raise NotImplementedError

    def stream(self) -> AsyncIterator[str]:
        """Make one call; the text of each event, as it comes."""
        raise NotImplementedError


class Client:
    """A client for threads."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def complete(self) -> str:
        """Make one call; the text of the answer."""
        raise NotImplementedError
