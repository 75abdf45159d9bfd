"""Records the history of this process's pools, while they are used or the status page is open."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import connections

from llm_pool.engine.loops import portal
from llm_pool.engine.loops.threads import start_thread
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.registry import pools
from llm_pool.status.snapshot import HISTORY, TICK_SECONDS, History
from llm_pool.status.workers import Slot

__all__ = ["recorder"]

THREAD_NAME = "llm_pool-status"
LINGER_SECONDS = HISTORY * TICK_SECONDS


class Recorder:
    """Records a tick of every pool each ``TICK_SECONDS``, and publishes it to the other workers.

    There is one for each process. Its thread starts with the first call, or the first request for the page,
    and ends ``LINGER_SECONDS`` after the last. It has a thread of its own because the cache may block.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start empty. Also in the child of a fork: the thread and the history belong to the parent."""
        self._history = History()
        self._lock = threading.Lock()  # taken by the recorder's threads only, which no interrupt reaches
        self._thread: threading.Thread | None = None
        self._ends_at = 0.0

    def pool_changed(self, _name: str, now: PoolStats, before: PoolStats | None) -> None:
        """Start recording if the pool has had a new call. For ``stats_listeners``.

        They are called when a call begins, and for calls through the clients too.
        """
        if now.requests > (before.requests if before is not None else 0):
            self.attend()

    def attend(self) -> None:
        """Record for another ``LINGER_SECONDS``. From any thread; takes no lock.

        Raises RuntimeError if the system has no thread to give.
        """
        self._ends_at = time.monotonic() + LINGER_SECONDS
        if self._thread is None:
            start_thread(self._run, name=THREAD_NAME)

    def snapshot(self) -> dict[str, Any]:
        """What the page shows of this process. From any thread."""
        return self._history.snapshot()

    def _run(self) -> None:
        if not self._claim():
            return
        slot = Slot()
        try:
            while not self._may_end():
                now = time.monotonic()
                time.sleep(TICK_SECONDS - now % TICK_SECONDS)  # all workers tick at the same time
                self._history.record(time.monotonic())
                slot.publish(self._history.snapshot())
        finally:
            connections.close_all()  # the cache may be a database table

    def _claim(self) -> bool:
        """Make this thread the recorder's. False if it has one: two calls at once may each start a thread."""
        with self._lock:
            if self._thread is not None:
                return False
            self._thread = threading.current_thread()
            return True

    def _may_end(self) -> bool:
        if time.monotonic() < self._ends_at or any(pool.engine.stats().in_use for pool in pools.made()):
            return False
        with self._lock:
            self._thread = None  # first: from here on ``attend`` starts another thread
            if time.monotonic() < self._ends_at:
                self._thread = threading.current_thread()
                return False
            return True


recorder = Recorder()
portal.after_fork(recorder.begin_anew)
