"""Hands log records from the threads of host loops to a thread of its own, which calls the log handlers.

A handler can block, wait for a lock, or call a pool: on a host loop it would stop every call of the process.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from functools import partial

from .greenlets import original
from .process import after_fork
from .threads import locked, new_lock, start_thread

__all__ = ["flush", "hand_over"]

THREAD_NAME = "llm_pool-log"
MAX_RECORDS = 10_000  # records that wait for their handlers; further ones are dropped and counted
FLUSH_SECONDS = 2.0  # how long the end of the process waits for handlers


class _LogThread:
    """Calls the handlers of records, in the order of the records. Its thread starts with the first record."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin without records and without a thread. Called again in the child of a fork."""
        self._work = original("_queue", "SimpleQueue")()
        self._started = new_lock()  # acquired by the first record, and never released if the thread starts
        self._dropped = 0

    def add(self, record: logging.LogRecord) -> None:
        """Have the handlers of ``record`` called soon. Drop the record if ``MAX_RECORDS`` wait already."""
        if self._work.qsize() >= MAX_RECORDS:
            self._dropped += 1
            return
        self._work.put(partial(self._handle, record))
        if self._started.acquire(False):
            try:
                start_thread(self._run, name=THREAD_NAME)
            except (RuntimeError, MemoryError):  # the next record tries again, or ``flush`` handles this one
                self._started.release()

    def flush(self) -> None:
        """Wait until the records added so far are handled, at most ``FLUSH_SECONDS``.

        Without a thread, handle them here: Python starts no thread while the process exits.
        """
        if self._started.locked():
            done = locked()
            self._work.put(done.release)
            done.acquire(timeout=FLUSH_SECONDS)
        while not self._started.locked() and not self._work.empty():
            self._work_once()

    def _run(self) -> None:
        while True:
            self._work_once()

    def _work_once(self) -> None:
        try:
            self._work.get()()
        except Exception:  # noqa: BLE001  a filter of the user's can raise anything
            traceback.print_exc()

    def _handle(self, record: logging.LogRecord) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            logging.getLogger("llm_pool.engine").warning(
                "%s log records were dropped: the log handlers are too slow", dropped
            )
        logging.getLogger(record.name).handle(record)


_log_thread = _LogThread()
after_fork(_log_thread.begin_anew)


def hand_over(names: Iterable[str], is_here: Callable[[], bool]) -> None:
    """Have the handlers of these loggers called on the log thread, for records made where ``is_here()``."""

    def is_for_this_thread(record: logging.LogRecord) -> bool:
        if not is_here():
            return True
        _log_thread.add(record)
        return False

    for name in names:
        # First, so that no filter of the user's runs on the host loop.
        logging.getLogger(name).filters.insert(0, is_for_this_thread)


def flush() -> None:
    """Wait until the records made so far are handled, at most ``FLUSH_SECONDS``."""
    _log_thread.flush()
