"""The step "live": makes cheap calls at the same time, and reports percentiles of their durations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llm_pool.diagnostics.report import Finding, Level, Step
from llm_pool.engine.clock import monotonic
from llm_pool.engine.request import WholeResponse
from llm_pool.engine.stats.histogram import find_quantile
from llm_pool.exceptions import LLMPoolError

__all__ = ["LiveCalls", "live_step", "make_live_calls"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class LiveCalls:
    """The results of calls that were made at the same time. All times are in seconds.

    ``calls``      the number of calls
    ``seconds``    how long it took until the last call had ended
    ``durations``  the duration of each call that succeeded
    ``queued``     how long each call that succeeded waited in the queue, without the wait for a dial
    ``failures``   the number of failed calls by what they failed with: "ReadTimeout", "status 429"
    ``opened``     the number of connections that the pool opened during the calls
    """

    calls: int
    seconds: float
    durations: list[float]
    queued: list[float]
    failures: Counter[str]
    opened: int


async def make_live_calls(
    get: Callable[[], Awaitable[WholeResponse]], calls: int, opened: Callable[[], int]
) -> LiveCalls:
    """Call ``get`` ``calls`` times at once, and return the results.

    ``get``     sends a request, and returns the whole response
    ``calls``   how many times to call ``get``
    ``opened``  returns how many connections the pool has opened so far
    """
    opened_before = opened()
    began = monotonic()
    outcomes = await asyncio.gather(*(_call(get) for _ in range(calls)))
    seconds = monotonic() - began
    marks = [outcome.marks for outcome in outcomes if isinstance(outcome, WholeResponse)]
    return LiveCalls(
        calls,
        seconds,
        [each.ended - each.started for each in marks],
        [max(0.0, each.acquired - each.started - each.dialing) for each in marks],
        Counter(outcome for outcome in outcomes if isinstance(outcome, str)),
        opened() - opened_before,
    )


async def _call(get: Callable[[], Awaitable[WholeResponse]]) -> WholeResponse | str:
    """Call ``get`` once. Return the response, or a text that says how the call failed.

    The text is the class name of the ``LLMPoolError``, or the status if it is 400 or above: "status 429".
    """
    try:
        response = await get()
    except LLMPoolError as error:
        return type(error).__name__
    return response if response.status < 400 else f"status {response.status}"


def live_step(live: LiveCalls, max_calls: int) -> Step:
    """Return the step "live" for ``live``, the results of live calls.

    ``max_calls`` is the number of calls that the pool can carry at a time.
    """
    facts = {
        "calls": live.calls,
        "failed": live.failures.total(),
        "failures": dict(live.failures),
        "connections_opened": live.opened,
        "total": _percentiles(live.durations),
        "queued": _percentiles(live.queued),
    }
    return Step("live", tuple(_findings(live, max_calls)), live.seconds, facts)


def _findings(live: LiveCalls, max_calls: int) -> list[Finding]:
    found = []
    if live.durations:
        total, queued = _percentiles(live.durations), _percentiles(live.queued)
        text = f"{len(live.durations)} of {live.calls} calls at once: {_as_text(total)}"
        found.append(Finding("live.done", Level.OK, f"{text}; queued {_as_text(queued)}"))
    if live.calls > max_calls:
        text = f"The pool carries {max_calls} calls at a time, so {live.calls - max_calls} had to wait."
        advice = "If real traffic reaches this level, raise LIMITS['max_connections']."
        found.append(Finding("live.queued", Level.NOTE, text, advice))
    if live.failures:
        only_limits = set(live.failures) == {"status 429"}
        names = ", ".join(f"{count} x {name}" for name, count in live.failures.most_common())
        advice = (
            "The provider limits the rate: ask for more, or send fewer at a time (LIMITS['max_connections'])."
            if only_limits
            else "PoolTimeout and PoolFull: raise LIMITS['max_connections']. All others: see the steps above."
        )
        level = Level.WARNING if only_limits else Level.ERROR
        code = "live.rate_limited" if only_limits else "live.failed"
        text = f"{live.failures.total()} of {live.calls} failed: {names}."
        found.append(Finding(code, level, text, advice))
    return found


def _percentiles(values: list[float]) -> dict[str, float]:
    """Return the percentiles of ``values`` by nearest rank, and the maximum: {"p50": 0.2, ..., "max": 0.9}.

    Returns {} if there are no values.
    """
    ranked = sorted(values)
    found = {}
    for percent in PERCENTILES:
        position = find_quantile([1] * len(ranked), percent / 100)
        if position is not None:
            found[f"p{percent}"] = ranked[position[0]]
    return {**found, "max": ranked[-1]} if ranked else {}


def _as_text(percentiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in percentiles.items())
