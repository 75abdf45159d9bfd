"""Measures how long each step of a dial takes, and records the step that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..clock import monotonic

__all__ = ["DialSteps"]


class DialSteps:
    """The steps of one dial: "dns", "tcp", "tunnel", "tls".

    ``addresses``  the IP addresses that the lookup returned
    ``seconds``    the duration of each step that has ended or failed
    ``current``    the step in progress, or the step that failed; otherwise None
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.seconds: dict[str, float] = {}
        self.current: str | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the duration of a ``with`` block as the step ``name``.

        ``current`` is ``name`` during the block, and also afterwards if the block raises.
        """
        self.current = name
        started_at = monotonic()
        try:
            yield
        finally:
            self.seconds[name] = monotonic() - started_at
        self.current = None
