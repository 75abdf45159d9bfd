"""Finds responses that nobody reads or closes, and where in the user's code they were opened."""

from __future__ import annotations

import logging
import sys
import traceback
import weakref

from .coordinator import Coordinator
from .exchange import Exchange
from .loops.threads import in_thread

__all__ = ["LeakDetector"]

DEPTH = 20  # frames of the user's code that are shown

logger = logging.getLogger("llm_pool.engine")


class LeakDetector:
    """Logs and counts a response held longer than ``threshold`` seconds, once.

    Where that is None it costs nothing.
    """

    def __init__(self, coordinator: Coordinator, threshold: float | None) -> None:
        self._coordinator = coordinator
        self._threshold = threshold

    def stack(self) -> traceback.StackSummary | None:
        """Where the caller stands, if that is wanted: called in his own thread."""
        if self._threshold is None:
            return None
        frames = traceback.walk_stack(sys._getframe(1))
        return traceback.StackSummary.extract(frames, limit=DEPTH, lookup_lines=False)

    def watch(self, exchange: Exchange, stack: traceback.StackSummary | None) -> None:
        """On the home of a response that has just been opened."""
        if self._threshold is not None and stack is not None:
            held = weakref.ref(exchange)
            exchange.host_loop.loop.call_later(self._threshold, self._look, held, stack)

    def _look(self, held: weakref.ref[Exchange], stack: traceback.StackSummary) -> None:
        exchange = held()
        if exchange is None or exchange.complete or exchange.closed or exchange.error is not None:
            return
        self._coordinator.leak_suspected()
        in_thread(_warn, self._coordinator.name, str(exchange.request.origin), self._threshold, stack)


def _warn(name: str, origin: str, threshold: float | None, stack: traceback.StackSummary) -> None:
    """On a thread of its own: reading the source's lines takes time, and a log handler may block."""
    stack.reverse()
    logger.warning(
        "pool %r: a response of %s has been held for over %s s, and its connection with it. "
        "Read it to its end or close it. It was opened here:\n%s",
        name,
        origin,
        threshold,
        "".join(stack.format()).rstrip(),
        extra={"pool": name, "origin": origin},
    )
