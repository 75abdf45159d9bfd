"""A function that an exception interrupts at a random moment, as a signal handler's exception would."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from tests.fixtures.callers import raise_in

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Interrupt", "interrupted"]

T = TypeVar("T")


class Interrupt(BaseException):
    """Raised in a thread from outside, between two of its bytecodes."""


def interrupted(function: Callable[[], T], seconds: float) -> T | None:
    """Call ``function`` on a new thread, and raise ``Interrupt`` there after ``seconds``.

    Returns the result of ``function``, or raises its error. Returns None if the interrupt came first. An
    interrupt that comes during a finalizer is lost, as every exception there is. Blocks until the thread has
    ended.
    """
    results: list[T] = []
    errors: list[Exception] = []
    began, sent = threading.Lock(), threading.Lock()
    began.acquire()
    sent.acquire()

    def run() -> None:
        try:
            try:
                began.release()
                results.append(function())
            except Exception as error:  # noqa: BLE001 - the caller raises it
                errors.append(error)
            sent.acquire()  # so that the interrupt does not come after this block
        except Interrupt:
            return

    thread = threading.Thread(target=run, name="soak interrupted")
    thread.start()
    began.acquire()
    time.sleep(seconds)
    raise_in(thread, Interrupt)
    sent.release()
    thread.join()
    for error in errors:
        raise error
    return results[0] if results else None
