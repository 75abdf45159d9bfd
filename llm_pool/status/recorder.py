"""Records the history of this process's pools, while they are used or the status page is open."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import connections

from llm_pool.engine.clock import monotonic
from llm_pool.engine.loops.process import after_fork
from llm_pool.engine.loops.threads import start_thread
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.registry import pools
from llm_pool.status.snapshot import HISTORY, TICK_SECONDS, History
from llm_pool.status.workers import Slot

__all__ = ["recorder"]

THREAD_NAME = "llm_pool-status"
LINGER_SECONDS = HISTORY * TICK_SECONDS


class Recorder:
    """Records a ``Tick`` of each pool every ``TICK_SECONDS`` seconds; publishes snapshots for other workers.

    A process has one recorder. The recorder has a thread of its own, because the cache may block. The thread
    starts with a call or a request for the page. The thread ends when there has been neither for
    ``LINGER_SECONDS`` and no call is in progress.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Set up the recorder without a history or a thread. Called again in the child of a fork."""
        self._history = History()
        self._lock = threading.Lock()  # acquired by the recorder's own threads, which no interrupt reaches
        self._thread: threading.Thread | None = None
        self._ends_at = 0.0

    def pool_changed(self, _name: str, now: PoolStats, before: PoolStats | None) -> None:
        """Call ``attend`` if the pool has had a call since ``before``. A callback of ``stats_listeners``.

        ``now``     the pool's stats
        ``before``  the pool's stats that this method got last; None the first time

        An observer would not do: it is called only when a call has ended, and not for calls through
        ``LLMPool.client`` and ``LLMPool.aclient``.
        """
        if now.requests > (before.requests if before is not None else 0):
            self.attend()

    def attend(self) -> None:
        """Record for at least ``LINGER_SECONDS`` from now on. Starts the recorder's thread if there is none.

        Can be called from any thread; acquires no lock. Raises RuntimeError if the system cannot start a
        thread.
        """
        self._ends_at = monotonic() + LINGER_SECONDS
        if self._thread is None:
            start_thread(self._run, name=THREAD_NAME)

    def snapshot(self) -> dict[str, Any]:
        """See ``History.snapshot``. Can be called from any thread."""
        return self._history.snapshot()

    def _run(self) -> None:
        if not self._claim():
            return
        slot = Slot()
        try:
            while not self._may_end():
                now = monotonic()
                time.sleep(TICK_SECONDS - now % TICK_SECONDS)  # all workers tick at the same time
                self._history.record(monotonic())
                slot.publish(self._history.snapshot())
        finally:
            connections.close_all()  # the cache may have opened connections to a database

    def _claim(self) -> bool:
        """Make this thread the recorder's thread. Return False if there is one already, otherwise True.

        Two calls of ``attend`` at the same time can start two threads: the second one then ends.
        """
        with self._lock:
            if self._thread is not None:
                return False
            self._thread = threading.current_thread()
            return True

    def _may_end(self) -> bool:
        if monotonic() < self._ends_at or any(pool.engine.stats().in_use for pool in pools.made()):
            return False
        with self._lock:
            self._thread = None  # before ``_ends_at`` is read: from here on ``attend`` starts another thread
            if monotonic() < self._ends_at:
                self._thread = threading.current_thread()
                return False
            return True


recorder = Recorder()
after_fork(recorder.begin_anew)
