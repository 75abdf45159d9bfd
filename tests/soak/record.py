"""Results of all calls, faults of the servers, and violations: what must never happen."""

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
"""Seconds after which a call counts as hanging: its timeouts add up to a tenth of that."""
MOST_PRINTED = 20


@dataclass
class Call:
    """One call. Its request carries ``token``, and its answer must have the same."""

    kind: str
    token: str
    began: float = field(default_factory=time.monotonic)
    arrived: int = 0
    """How often a server has received a request with this token."""
    may_repeat: bool = False
    """Its request has an idempotency key."""
    outcome: str = "result"
    """What the call is counted as."""


class Record:
    """Shared by all callers and servers; may be used in any thread."""

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
        """Record what must not happen. The first ``MOST_PRINTED`` are printed at once."""
        details = "".join(traceback.format_exception(error)) if error is not None else ""
        with self._lock:
            self.violations.append(what)
            count = len(self.violations)
        if count <= MOST_PRINTED:
            print(f"VIOLATION {count}: {what}\n{details}", flush=True)

    def fault(self, name: str) -> None:
        """Count a fault that a server is about to play."""
        with self._lock:
            self.faults[name] += 1

    def event(self, name: str) -> None:
        """Count any other event."""
        with self._lock:
            self.events[name] += 1

    def peak(self, name: str, count: int, bound: int) -> None:
        """Record how many connections of a pool its servers have; more than ``bound`` is a violation."""
        with self._lock:
            self.peaks[name] = max(self.peaks.get(name, 0), count)
        if count > bound:
            self.violation(f"{count} connections of pool {name!r} are open at the servers; {bound} may be")

    def arrived(self, token: str) -> None:
        """A server has received a request. Twice is a violation, except with an idempotency key."""
        with self._lock:
            call = self._active.get(token)
            if call is None:
                return  # its caller has ended meanwhile
            call.arrived += 1
        if call.arrived > 1 and not call.may_repeat:
            self.violation(f"a request of {call.kind!r} was sent {call.arrived} times")

    @contextlib.contextmanager
    def call(self, kind: str) -> Iterator[Call]:
        """Around a call: swallows the pool's errors, raises cancellations, records all else as violations."""
        call = Call(kind, f"call-{next(self._numbers)}.")
        with self._lock:
            self._active[call.token] = call
        try:
            yield call
        except LLMPoolError as error:
            call.outcome = type(error).__name__
        except asyncio.CancelledError as error:
            call.outcome = "cancelled"
            if not _was_requested():
                self.violation(f"{kind!r} was cancelled without a request to cancel", error)
            raise
        except GeneratorExit:
            call.outcome = "cancelled"
            raise
        except BaseException as error:  # noqa: BLE001 - the soak looks for these
            call.outcome = f"! {type(error).__name__}"
            self.violation(f"{kind!r} ended in a {type(error).__name__}", error)
        finally:
            self._ended(call)

    def look_for_hangs(self) -> None:
        """Record each call as a violation that has taken longer than ``HANGS``."""
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
    """Records each logged error as a violation, such as exceptions of callbacks and of lost tasks."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.ERROR)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._record.violation(f"logged by {record.name}: {record.getMessage()}", error)


def _was_requested() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop cannot be cancelled
        return False
    return task is not None and task.cancelling() > 0
