"""What every client does: make a call and return the text of its response, whole or as a stream.

Clients are not closed: their process ends after the measurement.
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
    """Where the calls go.

    ``url``          the base URL, with the path ``/v1``
    ``ca_file``      the PEM file of the certificate authority to trust; None without TLS
    ``http2``        whether the server offers HTTP/2
    ``connections``  the connections that a client may open
    """

    url: str
    ca_file: str | None = None
    http2: bool = False
    connections: int = 2500

    @property
    def completions(self) -> str:
        """The URL of chat completions."""
        return f"{self.url}/chat/completions"


class AsyncClient:
    """A client for tasks, made in a running event loop. Subclasses implement what their library supports."""

    def __init__(self, target: Target) -> None:
        self.target = target

    async def start(self) -> None:
        """Do what the library does when its server starts, without opening a connection."""

    async def prewarm(self) -> None:
        """Open a connection before the first call, if the library can."""

    def dials(self) -> int:
        """How many connections the client has opened so far, if its library counts them."""
        raise NotImplementedError

    async def complete(self) -> str:
        """Make one call and return the text of the answer."""
        raise NotImplementedError

    def stream(self) -> AsyncIterator[str]:
        """Make one call and yield the text of each event as it arrives."""
        raise NotImplementedError


class Client:
    """A client for threads."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def complete(self) -> str:
        """Make one call and return the text of the answer."""
        raise NotImplementedError
