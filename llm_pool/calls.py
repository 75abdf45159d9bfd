"""Each call that has ended, told to whoever wants to know, and counted to the Django request that made it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from llm_pool.completions import Timing, Usage, timing_of
from llm_pool.engine.errors import ConnectFailed, PoolTimeout
from llm_pool.engine.request import Marks, Principal, for_whom
from llm_pool.engine.stats.listeners import Listeners

if TYPE_CHECKING:
    from llm_pool.engine.pool import Pool

__all__ = ["Call", "CallRecord", "Caller", "RequestCalls", "current_request", "observe", "unobserve"]


class CallRecord(NamedTuple):
    """One call, once it has ended, however it did. It holds nothing of what was said, and no key.

    ``operation`` is "complete", "stream" or "request" (any endpoint). ``model`` is the one asked for.
    ``error`` is the name of the class of what the caller got instead of an answer; "CancelledError" where he
    gave up: cancelled the call, or closed or dropped a stream before its end. ``status_code`` is None where
    no answer came. ``replays`` is how often the request was sent again.
    """

    alias: str
    provider: str
    model: str | None
    operation: str
    status_code: int | None
    error: str | None
    timing: Timing
    usage: Usage | None
    replays: int


class RequestCalls:
    """The calls that one Django request has made, as they end: ``request.llm_pool``. Durations in seconds.

    Safe to read at any time and from any thread: a call is added in one step.
    """

    __slots__ = ("records",)

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @property
    def calls(self) -> int:
        """How many have ended."""
        return len(self.records)

    @property
    def errors(self) -> int:
        """How many of them failed, or were given up."""
        return sum(record.error is not None for record in self.records)

    @property
    def waited(self) -> float:
        """Seconds that they were without a connection: queued, and dialing."""
        return sum(record.timing.queued + record.timing.dialing for record in self.records)

    @property
    def provider_seconds(self) -> float:
        """Seconds that they took beyond that. Calls made at the same time count each."""
        return sum(record.timing.total for record in self.records) - self.waited

    @property
    def input_tokens(self) -> int:
        """Tokens that the models read."""
        return sum(record.usage.input_tokens for record in self.records if record.usage is not None)

    @property
    def output_tokens(self) -> int:
        """Tokens that the models wrote."""
        return sum(record.usage.output_tokens for record in self.records if record.usage is not None)

    def __repr__(self) -> str:
        return f"<RequestCalls {self.calls} calls, {self.errors} errors, waited {self.waited:.3f} s>"


current_request: ContextVar[RequestCalls | None] = ContextVar("llm_pool_request", default=None)
"""What the calls of this context are counted to. Set by the middleware."""

_observers: Listeners[CallRecord] = Listeners()


def observe(observer: Callable[[CallRecord], None]) -> None:
    """Have ``observer`` told of each call when it has ended: where its caller is, who waits for it meanwhile.

    It must not block, nor take a lock that its own thread may hold: the garbage collector may be the one who
    ends a call. Its errors change nothing; the first is logged. A stream that nobody closed is told of on a
    thread of its own.
    """
    _observers.append(observer)


def unobserve(observer: Callable[[CallRecord], None]) -> None:
    """Tell it no more. Raises ValueError where it was not told."""
    _observers.remove(observer)


class Caller(NamedTuple):
    """On whose behalf calls are made."""

    alias: str
    provider: str
    engine: Pool


class Call:
    """A call on its way, from when it is made. What is known of it is set as it becomes known."""

    __slots__ = ("_began", "_caller", "_model", "_once", "_operation", "_outer", "_request",
                 "marks", "replays", "status_code", "timing", "usage")  # fmt: skip

    def __init__(self, caller: Caller, operation: str, model: str | None) -> None:
        self._caller = caller
        self._operation = operation
        self._model = model
        self._request = current_request.get()
        self._once = threading.Lock()  # taken, and never given back, by who ends it
        self._began = time.monotonic()
        self._outer: Token[Principal | None]
        self.marks: Marks | None = None
        self.status_code: int | None = None
        self.timing: Timing | None = None
        self.usage: Usage | None = None
        self.replays = 0

    def __enter__(self) -> Self:
        self._outer = for_whom.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _reset(self._outer)
        self.end(error)

    @contextmanager
    def opening(self) -> Iterator[float]:
        """It is made only now, in seconds of the monotonic clock, and within this."""
        outer = for_whom.set(self)
        self._began = time.monotonic()
        try:
            yield self._began
        finally:
            _reset(outer)

    def give_up(self) -> None:
        """``end``, for a caller that wants no more of it."""
        self.end(asyncio.CancelledError())

    def end(self, error: BaseException | None = None) -> None:
        """It is over. Only the first time counts. From any thread; it waits for no lock."""
        if not self._once.acquire(blocking=False):
            return
        timing, usage = self.timing or self._look_back(error), self.usage
        if usage is not None or timing.first_token is not None:
            tokens = (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)
            self._caller.engine.count_answer(*tokens, timing.first_token)
        if self._request is None and not _observers:
            return
        record = CallRecord(
            self._caller.alias,
            self._caller.provider,
            self._model,
            self._operation,
            self.status_code if error is None else getattr(error, "status_code", self.status_code),
            type(error).__name__ if error is not None else None,
            timing,
            usage,
            self.replays,
        )
        if self._request is not None:
            self._request.records.append(record)
        _observers.tell(record)

    def _look_back(self, error: BaseException | None) -> Timing:
        """All that is known of a call without an answer."""
        marks = self.marks
        if marks is None:  # it has not come as far as the engine: a mock has answered, or there was no key
            waited = isinstance(error, PoolTimeout | ConnectFailed)
            marks = Marks(self._began, acquired=0.0 if waited else self._began)
        timing, self.replays = timing_of(marks), marks.replays
        if isinstance(error, ConnectFailed):
            queued = timing.queued if marks.acquired else 0.0  # other engines dial in the middle of a call
            return replace(timing, queued=queued, dialing=timing.total - queued)
        return timing


def _reset(outer: Token[Principal | None]) -> None:
    with suppress(ValueError):  # the garbage collector ends what was forgotten in a context of its own
        for_whom.reset(outer)
