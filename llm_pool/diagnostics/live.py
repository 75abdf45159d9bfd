"""Many cheap calls at once, and how long they took."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llm_pool.diagnostics.report import Finding, Level, Step
from llm_pool.engine.request import WholeResponse
from llm_pool.exceptions import LLMPoolError

__all__ = ["Trial", "live_step", "try_live"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of the calls. Durations in seconds; ``failures`` counts them by what they said."""

    calls: int
    seconds: float
    durations: list[float]
    queued: list[float]
    failures: Counter[str]
    opened: int


async def try_live(
    get: Callable[[], Awaitable[WholeResponse]], calls: int, opened: Callable[[], int]
) -> Trial:
    """Make that many calls at once."""
    before = opened()
    began = time.monotonic()
    outcomes = await asyncio.gather(*(_one(get) for _ in range(calls)))
    seconds = time.monotonic() - began
    good = [outcome for outcome in outcomes if isinstance(outcome, WholeResponse)]
    return Trial(
        calls,
        seconds,
        [whole.marks.ended - whole.marks.started for whole in good],
        [max(0.0, whole.marks.acquired - whole.marks.started - whole.marks.dialing) for whole in good],
        Counter(outcome for outcome in outcomes if isinstance(outcome, str)),
        opened() - before,
    )


async def _one(get: Callable[[], Awaitable[WholeResponse]]) -> WholeResponse | str:
    try:
        whole = await get()
    except LLMPoolError as error:
        return type(error).__name__
    return whole if whole.status < 400 else f"status {whole.status}"


def live_step(trial: Trial, room: int) -> Step:
    """The step's findings: percentiles, waits, failures. ``room`` is how many calls the pool carries."""
    facts = {
        "calls": trial.calls,
        "failed": trial.failures.total(),
        "failures": dict(trial.failures),
        "connections_opened": trial.opened,
        "total": _percentiles(trial.durations),
        "queued": _percentiles(trial.queued),
    }
    return Step("live", tuple(_findings(trial, room)), trial.seconds, facts)


def _findings(trial: Trial, room: int) -> list[Finding]:
    found = []
    if trial.durations:
        total, queued = _percentiles(trial.durations), _percentiles(trial.queued)
        text = f"{len(trial.durations)} of {trial.calls} calls at once: {_in_words(total)}"
        found.append(Finding("live.done", Level.OK, f"{text}; queued {_in_words(queued)}"))
    if trial.calls > room:
        text = f"The pool carries {room} calls at a time, so {trial.calls - room} had to wait their turn."
        advice = "If real traffic reaches this level, raise LIMITS['max_connections']."
        found.append(Finding("live.queued", Level.NOTE, text, advice))
    if trial.failures:
        only_limits = set(trial.failures) == {"status 429"}
        what = ", ".join(f"{count} x {name}" for name, count in trial.failures.most_common())
        advice = (
            "The provider limits the rate: ask for more, or send fewer at a time (LIMITS['max_connections'])."
            if only_limits
            else "PoolTimeout and PoolFull: raise LIMITS['max_connections']. All others: see the steps above."
        )
        level = Level.WARNING if only_limits else Level.ERROR
        code = "live.rate_limited" if only_limits else "live.failed"
        found.append(
            Finding(code, level, f"{trial.failures.total()} of {trial.calls} failed: {what}.", advice)
        )
    return found


def _percentiles(values: list[float]) -> dict[str, float]:
    """By nearest rank, and the most. Empty without values."""
    if not values:
        return {}
    ranked = sorted(values)
    found = {f"p{each}": ranked[math.ceil(each / 100 * len(ranked)) - 1] for each in PERCENTILES}
    return {**found, "max": ranked[-1]}


def _in_words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in values.items())
