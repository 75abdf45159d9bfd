"""The record of a soak: the outcome of every call, the servers' faults, and the violations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_pool.exceptions import LLMPoolError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HANGS", "Call", "Record"]

HANGS = 20.0
"""Seconds after which a call counts as hanging: far more than its total timeout."""
MAX_PRINTED = 20


@dataclass
class Call:
    """One call. Its request has the token, and its answer must have it too.

    ``kind``        as the table shows it
    ``token``       unique in a soak
    ``began``       seconds of the monotonic clock
    ``arrived``     how often a server has received a request with this token
    ``may_repeat``  whether the request has an idempotency key
    ``outcome``     what the call is counted as if it raises no error
    """

    kind: str
    token: str
    began: float = field(default_factory=time.monotonic)
    arrived: int = 0
    may_repeat: bool = False
    outcome: str = "result"


class Record:
    """Shared by all callers and servers; its methods are thread-safe."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.violations: list[str] = []
        self.longest = 0.0
        self.peaks: dict[str, int] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._active: dict[str, Call] = {}

    def violation(self, what: str, error: BaseException | None = None) -> None:
        """Record something that must never happen. The first ``MAX_PRINTED`` are printed at once."""
        details = "".join(traceback.format_exception(error)) if error is not None else ""
        with self._lock:
            self.violations.append(what)
            count = len(self.violations)
        if count <= MAX_PRINTED:
            print(f"VIOLATION {count}: {what}\n{details}", flush=True)

    def fault(self, name: str) -> None:
        """Count something that a server is about to do."""
        with self._lock:
            self.faults[name] += 1

    def event(self, name: str) -> None:
        """Count any other event."""
        with self._lock:
            self.events[name] += 1

    def peak(self, name: str, count: int, bound: int) -> None:
        """Record a pool's open connections, counted at its servers; more than ``bound`` is a violation."""
        with self._lock:
            self.peaks[name] = max(self.peaks.get(name, 0), count)
        if count > bound:
            self.violation(f"{count} connections of pool {name!r} are open at the servers; {bound} may be")

    def arrived(self, token: str) -> None:
        """Record that a server received a request. Without idempotency key, a second time is a violation."""
        with self._lock:
            call = self._active.get(token)
            if call is None:
                return  # the call has ended
            call.arrived += 1
        if call.arrived > 1 and not call.may_repeat:
            self.violation(f"a request of {call.kind!r} was sent {call.arrived} times")

    @contextlib.contextmanager
    def call(self, kind: str) -> Iterator[Call]:
        """Record a call that is made in this block.

        An LLMPoolError is an outcome and ends here; a cancellation is raised again; any other error is a
        violation.
        """
        call = Call(kind, f"call-{next(self._numbers)}.")
        with self._lock:
            self._active[call.token] = call
        try:
            yield call
        except LLMPoolError as error:
            call.outcome = type(error).__name__
        except asyncio.CancelledError as error:
            call.outcome = "cancelled"
            if not _is_cancelling():
                self.violation(f"{kind!r} raised CancelledError in a task that was not cancelled", error)
            raise
        except GeneratorExit:
            call.outcome = "cancelled"
            raise
        except BaseException as error:  # noqa: BLE001 - the soak searches for such errors
            call.outcome = f"! {type(error).__name__}"
            self.violation(f"{kind!r} ended in a {type(error).__name__}", error)
        finally:
            self._ended(call)

    def look_for_hangs(self) -> None:
        """Record every call that has lasted longer than ``HANGS`` as a violation, once."""
        now = time.monotonic()
        with self._lock:
            hanging = [call for call in self._active.values() if now - call.began > HANGS]
            for call in hanging:
                del self._active[call.token]
        for call in hanging:
            self.violation(f"{call.kind!r} hangs: {now - call.began:.1f} s")

    def _ended(self, call: Call) -> None:
        took = time.monotonic() - call.began
        with self._lock:
            self._active.pop(call.token, None)
            self.calls[call.kind] += 1
            self.outcomes[call.outcome] += 1
            self.longest = max(self.longest, took)


class ErrorLog(logging.Handler):
    """Records every logged error as a violation, such as those of asyncio about callbacks and tasks."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.ERROR)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._record.violation(f"logged by {record.name}: {record.getMessage()}", error)


def _is_cancelling() -> bool:
    """Whether the current task has been asked to cancel."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop cannot be cancelled
        return False
    return task is not None and task.cancelling() > 0
