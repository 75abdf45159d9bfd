"""Finds responses that are neither read nor closed, and the place in the user's code that opened them."""

from __future__ import annotations

import logging
import sys
import traceback
import weakref

from .coordinator import Coordinator
from .exchange import Exchange
from .loops.threads import in_thread

__all__ = ["LeakDetector"]

MAX_FRAMES = 20  # frames of the stack that are logged

logger = logging.getLogger("llm_pool.engine")


class LeakDetector:
    """Logs and counts each response that is still open after ``threshold`` seconds.

    Does nothing if ``threshold`` is None.
    """

    def __init__(self, coordinator: Coordinator, threshold: float | None) -> None:
        self._coordinator = coordinator
        self._threshold = threshold

    def caller_stack(self) -> traceback.StackSummary | None:
        """Return the stack of the calling code, the innermost frame first; None without a threshold.

        At most ``MAX_FRAMES`` frames are returned. Call the method before the call moves to its host loop.
        """
        if self._threshold is None:
            return None
        frames = traceback.walk_stack(sys._getframe(1))
        return traceback.StackSummary.extract(frames, limit=MAX_FRAMES, lookup_lines=False)

    def watch(self, exchange: Exchange, stack: traceback.StackSummary | None) -> None:
        """Log and count a response that is still open after the threshold.

        Runs on the host loop of ``exchange``. ``stack``: the result of ``caller_stack`` for this call.
        """
        if self._threshold is not None and stack is not None:
            reference = weakref.ref(exchange)
            exchange.host_loop.loop.call_later(self._threshold, self._check, reference, stack)

    def _check(self, reference: weakref.ref[Exchange], stack: traceback.StackSummary) -> None:
        exchange = reference()
        if exchange is None or exchange.complete or exchange.closed or exchange.error is not None:
            return
        self._coordinator.leak_suspected()
        in_thread(_warn, self._coordinator.name, str(exchange.request.origin), self._threshold, stack)


def _warn(name: str, origin: str, threshold: float | None, stack: traceback.StackSummary) -> None:
    """Log the warning of a leak.

    Runs on a thread of its own: the formatting reads source files, and a log handler can block.
    """
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
