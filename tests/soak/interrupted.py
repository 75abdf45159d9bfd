"""A function that an exception interrupts at a random moment, as a signal handler's exception would."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import LLMPoolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Interrupt", "interrupted"]


class Interrupt(BaseException):
    """Raised in a thread from outside, between two of its bytecodes."""


def interrupted(function: Callable[[], Any], seconds: float) -> list[Any]:
    """Call ``function`` on a new thread, and raise ``Interrupt`` there after ``seconds``.

    Returns a list of its result, or of its LLMPoolError. The list is empty if the interrupt came first.
    Blocks until the thread has ended.
    """
    outcome: list[Any] = []
    began, sent = threading.Lock(), threading.Lock()
    began.acquire()
    sent.acquire()

    def run() -> None:
        try:
            try:
                began.release()
                outcome.append(function())
            except LLMPoolError as error:
                outcome.append(error)
            sent.acquire()
            outcome.append("never interrupted")  # the interrupt comes before this line
        except Interrupt:
            return

    thread = threading.Thread(target=run, name="soak interrupted")
    thread.start()
    began.acquire()
    time.sleep(seconds)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupt))
    sent.release()
    thread.join()
    return outcome
