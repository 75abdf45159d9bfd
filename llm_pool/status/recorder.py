"""Records the history of this process's pools, as long as they are used or looked at."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import connections

from llm_pool.engine.loops import portal
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.registry import pools
from llm_pool.status.snapshot import HISTORY, TICK_SECONDS, History
from llm_pool.status.workers import Slot

__all__ = ["recorder"]

THREAD_NAME = "llm_pool-status"
LINGER_SECONDS = HISTORY * TICK_SECONDS


class Recorder:
    """One for the process. Its thread begins with the first call or look, and ends when both have ceased.

    A thread of its own, for a cache may block: neither callers nor event loops are to wait for it.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """In the child of a fork, too: the thread was the parent's, and the history is."""
        self._history = History()
        self._lock = threading.RLock()  # re-entrant: the garbage collector may end a call here
        self._thread: threading.Thread | None = None
        self._ends_at = 0.0

    def pool_changed(self, _name: str, now: PoolStats, before: PoolStats | None) -> None:
        """A listener to the engine's news, which tell of calls through the clients too, and as they begin."""
        if now.requests > (before.requests if before is not None else 0):
            self.attend()

    def attend(self) -> None:
        """The pools are used, or somebody looks. Neither blocks nor raises."""
        self._ends_at = time.monotonic() + LINGER_SECONDS
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        with self._lock:
            if self._thread is not None:
                return
            self._thread = thread
        thread.start()

    def snapshot(self) -> dict[str, Any]:
        """What this process shows. From any thread."""
        return self._history.snapshot()

    def _run(self) -> None:
        slot = Slot()
        try:
            while not self._may_end():
                now = time.monotonic()
                time.sleep(TICK_SECONDS - now % TICK_SECONDS)  # all workers tick at the same time
                self._history.record(time.monotonic())
                slot.publish(self._history.snapshot())
        finally:
            connections.close_all()  # the cache may be a table

    def _may_end(self) -> bool:
        if any(pool.engine.stats().in_use for pool in pools.made()):
            return False
        with self._lock:
            if time.monotonic() < self._ends_at:
                return False
            self._thread = None
            return True


recorder = Recorder()
portal.after_fork(recorder.begin_anew)
