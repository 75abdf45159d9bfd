"""Those who want to be told of something, and must not be able to break what they are told of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVarTuple

from ..homes.threads import in_thread

__all__ = ["Listeners"]

Ts = TypeVarTuple("Ts")

logger = logging.getLogger("llm_pool.engine")


class Listeners(list[Callable[[*Ts], None]], Generic[*Ts]):
    """Listeners, told one after another. One that raises keeps no other from hearing, and goes on being told.

    Its first error is logged with the traceback; those after it would only fill the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: list[Callable[[*Ts], None]] = []

    def tell(self, *args: *Ts) -> None:
        """Call each of them, here and now."""
        for listener in self:
            try:
                listener(*args)
            except Exception as error:  # noqa: BLE001  whatever a listener does wrong
                self._note(listener, error)

    def _note(self, listener: Callable[[*Ts], None], error: Exception) -> None:
        if listener not in self._failed:
            self._failed.append(listener)
            # On a thread of its own: a log handler may block, and this may be an event loop.
            message = "listener %r raised; it stays registered, and its further errors are not logged"
            in_thread(logger.error, message, listener, exc_info=error)
