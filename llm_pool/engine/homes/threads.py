"""Work that blocks, off the event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call ``function`` on a thread of its own. Whoever stops waiting for the future cancels nothing.

    Not on an executor: a call that hangs delays neither others nor the end of the process.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # many may wait for it, and what runs cannot be cancelled

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  it is the caller's
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=f"llm_pool-{function.__name__}", daemon=True).start()
    return future
