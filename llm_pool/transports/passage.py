"""What httpcore's own handler takes for a connection, where a mock lets a request pass through to it."""

from __future__ import annotations

import httpcore

from llm_pool.engine.config import Timeouts
from llm_pool.engine.pool import Pool

__all__ = ["Passage"]


class Passage:
    """Any number of the engine's connections, as one of httpcore's: always open, never full."""

    def __init__(self, pool: Pool, timeouts: Timeouts, origin: httpcore.Origin) -> None:
        self._engine = pool
        self._timeouts = timeouts
        self._origin = origin

    def info(self) -> str:
        return f"llm_pool, {self._origin}"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False
