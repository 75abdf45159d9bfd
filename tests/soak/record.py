"""What came of every call, what the servers did to it, and what must never have happened."""

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
"""Seconds after which a call hangs: its timeouts add up to a tenth of that."""
MOST_PRINTED = 20


@dataclass
class Call:
    """One call: ``token`` goes out with it, and has to come back with its answer."""

    kind: str
    token: str
    began: float = field(default_factory=time.monotonic)
    arrived: int = 0
    """How often a server has taken up a request with this token."""
    may_repeat: bool = False
    """Its request has an idempotency key."""
    outcome: str = "result"
    """What it is counted as, where no error says otherwise."""


class Record:
    """Shared by all callers and servers, in all their threads."""

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
        """Something that must not happen has happened. The first few are printed at once."""
        details = "".join(traceback.format_exception(error)) if error is not None else ""
        with self._lock:
            self.violations.append(what)
            count = len(self.violations)
        if count <= MOST_PRINTED:
            print(f"VIOLATION {count}: {what}\n{details}", flush=True)

    def fault(self, name: str) -> None:
        """A server is about to do this."""
        with self._lock:
            self.faults[name] += 1

    def event(self, name: str) -> None:
        """Anything else that is worth a count."""
        with self._lock:
            self.events[name] += 1

    def peak(self, name: str, count: int, bound: int) -> None:
        """So many connections of one pool are open, counted at its servers."""
        with self._lock:
            self.peaks[name] = max(self.peaks.get(name, 0), count)
        if count > bound:
            self.violation(f"{count} connections of pool {name!r} are open at the servers; {bound} may be")

    def arrived(self, token: str) -> None:
        """A server takes up a request. Twice is once too often, without an idempotency key."""
        with self._lock:
            call = self._active.get(token)
            if call is None:
                return  # its caller has left meanwhile
            call.arrived += 1
        if call.arrived > 1 and not call.may_repeat:
            self.violation(f"a request of {call.kind!r} was sent {call.arrived} times")

    @contextlib.contextmanager
    def call(self, kind: str) -> Iterator[Call]:
        """Around a call. Errors that may happen end here; a cancellation goes on to who cancelled."""
        call = Call(kind, f"call-{next(self._numbers)}.")
        with self._lock:
            self._active[call.token] = call
        try:
            yield call
        except LLMPoolError as error:
            call.outcome = type(error).__name__
        except asyncio.CancelledError as error:
            call.outcome = "cancelled"
            if not _was_asked_for():
                self.violation(f"{kind!r} was cancelled, and nobody had asked for it", error)
            raise
        except GeneratorExit:
            call.outcome = "cancelled"
            raise
        except BaseException as error:  # noqa: BLE001 - that is what we are here to find
            call.outcome = f"! {type(error).__name__}"
            self.violation(f"{kind!r} ended in a {type(error).__name__}", error)
        finally:
            self._ended(call)

    def look_for_hangs(self) -> None:
        """Every call that has taken longer than its timeouts allow."""
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
    """Whatever is logged as an error is a violation: exceptions of callbacks and lost tasks among it."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.ERROR)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._record.violation(f"logged by {record.name}: {record.getMessage()}", error)


def _was_asked_for() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop: nobody can cancel it
        return False
    return task is not None and task.cancelling() > 0
