"""The record of each call: for observers, and for the Django request during which the call was made."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from llm_pool.engine.stats.listeners import Listeners

if TYPE_CHECKING:
    from llm_pool.providers.results import Timing
    from llm_pool.providers.usage import Usage

__all__ = ["CallRecord", "RequestCalls", "current_request", "observe", "observers", "unobserve"]


class CallRecord(NamedTuple):
    """A call that has ended. The record contains no prompt, no answer and no key.

    ``alias``        the pool's name in ``LLM_POOL``
    ``provider``     the provider's name
    ``model``        the call's ``model``, otherwise MODEL from the settings; None if neither is given, and
                     for ``request()``
    ``operation``    "complete", "stream", "embed" or "request" (any endpoint)
    ``status_code``  the answer's HTTP status; None if no answer arrived
    ``error``        the class name of the error that the caller got; None if the caller got no error;
                     "CancelledError" if the caller cancelled the call, or closed or dropped a stream before
                     its end
    ``timing``       how long the parts of the call took
    ``usage``        the tokens of the call; None if the provider did not report them
    ``replays``      how many times the request was sent again
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
    """``request.llm_pool``: the calls that were made during one Django request and have ended.

    ``records``  one record of each call, in the order in which the calls ended. Can be read at any time, from
                 any thread
    """

    __slots__ = ("records",)

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @property
    def calls(self) -> int:
        """The number of calls that have ended."""
        return len(self.records)

    @property
    def errors(self) -> int:
        """The number of calls that failed or were cancelled."""
        return sum(record.error is not None for record in self.records)

    @property
    def waited(self) -> float:
        """The sum of the seconds that each call waited for a connection, in the queue or during a dial."""
        return sum(record.timing.queued + record.timing.dialing for record in self.records)

    @property
    def provider_seconds(self) -> float:
        """The sum of the seconds that each call took after its wait for a connection.

        Calls that ran at the same time are added up too.
        """
        return sum(record.timing.total for record in self.records) - self.waited

    @property
    def input_tokens(self) -> int:
        """The number of input tokens of all calls, as the providers count them."""
        return sum(record.usage.input_tokens for record in self.records if record.usage is not None)

    @property
    def output_tokens(self) -> int:
        """The number of output tokens of all calls, as the providers count them."""
        return sum(record.usage.output_tokens for record in self.records if record.usage is not None)

    def __repr__(self) -> str:
        return f"<RequestCalls {self.calls} calls, {self.errors} errors, waited {self.waited:.3f} s>"


current_request: ContextVar[RequestCalls | None] = ContextVar("llm_pool_request", default=None)
"""The ``RequestCalls`` that calls in this context are added to; None without ``PoolMiddleware``."""

observers: Listeners[CallRecord] = Listeners()


def observe(observer: Callable[[CallRecord], None]) -> None:
    """Call ``observer`` after each call ends, on the caller's thread or loop; the caller waits for it.

    ``observer`` must not block. When the garbage collector ends a call, as for a dropped coroutine,
    ``observer`` is called on any thread, in the middle of other code: ``observer`` must not acquire a lock
    that this code can hold. For a stream that was neither read to its end nor closed, ``observer`` is called
    on a new thread. If ``observer`` raises, the call does not fail, and the first such exception is logged.
    """
    observers.append(observer)


def unobserve(observer: Callable[[CallRecord], None]) -> None:
    """Stop calling ``observer``. Raises ValueError if ``observer`` is not registered."""
    observers.remove(observer)
