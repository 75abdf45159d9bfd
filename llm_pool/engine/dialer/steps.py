"""How a dial went, part by part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["DialSteps"]


class DialSteps:
    """The parts of one dial: "dns", "tcp", "tunnel", "tls".

    ``seconds`` has how long each took that was begun, and ``current`` the one that is under way, or that
    the dial failed in. ``addresses`` are those that the name stood for.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.seconds: dict[str, float] = {}
        self.current: str | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Within it that part takes place."""
        self.current = name
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - began
        self.current = None
