"""A call in progress: its times, its tokens and its end."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from llm_pool.calling.record import CallRecord, current_request, observers
from llm_pool.engine.clock import monotonic
from llm_pool.engine.request import Marks
from llm_pool.exceptions import ConnectFailed, PoolTimeout
from llm_pool.providers.results import Timing, timing_of
from llm_pool.providers.usage import Usage

if TYPE_CHECKING:
    from llm_pool.engine.pool import Pool

__all__ = ["Call", "CallingPool"]


class CallingPool(NamedTuple):
    """The pool that makes a call.

    ``alias``     the pool's name in ``LLM_POOL``
    ``provider``  the provider's name
    ``engine``    the engine's pool: ``Call.end`` adds tokens and the time of the first token to its stats
    """

    alias: str
    provider: str
    engine: Pool


class Call:
    """A call in progress. ``with Call(...):`` records the call when the block ends.

    ``operation`` and ``model`` are those of ``CallRecord``.

    ``choices``      how many answers the call asks for
    ``marks``        when the call's steps took place; part of the engine's request, and set by the engine
    ``status_code``  the answer's HTTP status; None before it arrives. Set by the code that makes the call
    ``usage``        the answer's tokens; None before they are known. Set by the code that makes the call
    """

    __slots__ = ("_began", "_ended", "_model", "_operation", "_pool", "_request", "_timing", "choices",
                 "marks", "status_code", "usage")  # fmt: skip

    def __init__(self, pool: CallingPool, operation: str, model: str | None, choices: int = 1) -> None:
        self._pool = pool
        self._operation = operation
        self._model = model
        self._request = current_request.get()
        self._ended = threading.Lock()  # acquired by the first ``end``, never released
        self._began = monotonic()
        self._timing: Timing | None = None
        self.choices = choices
        self.marks = Marks()
        self.status_code: int | None = None
        self.usage: Usage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def begin(self) -> float:
        """Set the call's start time to now, and return it (monotonic seconds)."""
        self._began = monotonic()
        return self._began

    def timing(self, first_token: float | None = None) -> Timing:
        """Return how long the parts of the call took. A call that a mock answers has not waited.

        ``first_token`` is when the first text of a stream arrived, in seconds of the monotonic clock.
        """
        marks = self.marks
        if not marks.started:
            marks = Marks(self._began, acquired=self._began, ended=marks.ended)
        self._timing = timing_of(marks, first_token)
        return self._timing

    def cancel(self) -> None:
        """Record that the caller has cancelled the call."""
        self.end(asyncio.CancelledError())

    def end(self, error: BaseException | None = None, timing: Timing | None = None) -> None:
        """Record the call in ``stats`` and on the Django request, and call the observers.

        Only the first ``end`` has an effect. ``error`` is the exception that the caller gets, or None.
        ``timing`` is recorded if it is given; otherwise, without an error, what ``timing()`` has returned,
        and else what ``marks`` say. Can be called from any thread; does not wait for a lock.
        """
        if not self._ended.acquire(blocking=False):
            return
        if timing is None:
            timing = (
                self._timing if error is None and self._timing is not None else self._timing_at_end(error)
            )
        usage = self.usage
        if usage is not None or timing.first_token is not None:
            tokens = (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)
            self._pool.engine.count_answer(*tokens, timing.first_token)
        if self._request is None and not observers:
            return
        record = CallRecord(
            self._pool.alias,
            self._pool.provider,
            self._model,
            self._operation,
            self.status_code if error is None else getattr(error, "status_code", self.status_code),
            type(error).__name__ if error is not None else None,
            timing,
            usage,
            self.marks.replays,
        )
        if self._request is not None:
            self._request.records.append(record)
        observers.call(record)

    def _timing_at_end(self, error: BaseException | None) -> Timing:
        marks = self.marks
        if not marks.started:  # the call did not reach the engine: a mock answered, or there was no key
            waited = isinstance(error, PoolTimeout | ConnectFailed)
            marks = Marks(self._began, acquired=0.0 if waited else self._began)
        timing = timing_of(marks)
        if isinstance(error, ConnectFailed):
            # A client of ``backends`` dials after the call has acquired a connection, the engine before that.
            queued = timing.queued if marks.acquired else 0.0
            return replace(timing, queued=queued, dialing=timing.total - queued)
        return timing
