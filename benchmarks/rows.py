"""The goals: which measure is compared with which, and the bound for the result."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.results import Measured, Results
from benchmarks.workloads import BEFORE, ROUND_TRIP, WORKLOADS

__all__ = ["ROWS", "Outcome", "Row", "Spread", "outcome"]


MIN_ROUNDS = 5  # of a result that is not marked
COUNTS = ("functions", "python", "dials")  # metrics that one round measures, on a busy machine too
MAX_LOAD = 1.5  # of the machine, by other processes, in a result that is not marked


class Spread(NamedTuple):
    """The results of several rounds.

    ``median``  of all rounds; of a comparison, the comparison of the medians
    ``least``   the smallest of a round
    ``most``    the largest of a round
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))


Compare = Callable[[float, float], float]


def ratio(one: float, other: float) -> float:
    """``one`` as a multiple of ``other``."""
    return one / other


def difference(one: float, other: float) -> float:
    """By how much ``one`` exceeds ``other``."""
    return one - other


def count(one: float, _other: float) -> float:
    """``one`` itself, which is a number of things."""
    return one


@dataclass(frozen=True)
class Row:
    """A comparison of two contestants of a workload, or of one with a fixed value.

    ``workload``    its name
    ``contestant``  the label of the first
    ``against``     the label of the second, or what the fixed value is
    ``goal``        the bound for the result; None for no goal
    ``metric``      what is compared: a key of ``results.Round``
    ``compare``     ``ratio``, ``difference`` or ``count``
    ``at_least``    whether the goal is a lower bound
    ``yardstick``   the fixed value; None to compare with ``against``
    """

    workload: str
    contestant: str
    against: str
    goal: float | None
    metric: str = "cpu"
    compare: Compare = ratio
    at_least: bool = False
    yardstick: float | None = None

    @property
    def work(self) -> str:
        """The title of the workload."""
        return WORKLOADS[self.workload].title

    def shown(self, value: float) -> str:
        """A value of this row as text: a ratio or number without a unit, or milliseconds."""
        if self.compare is count:
            return f"{value:,.0f}"
        if self.compare is difference:
            return f"{value * 1e3:.1f} ms"
        return f"{value:.3f}" if value < 0.995 else f"{value:.2f}"

    @property
    def shown_goal(self) -> str:
        """The goal as text, such as "at most 0.8"; "" without a goal."""
        if self.goal is None:
            return ""
        goal = f"{self.goal * 1e3:g} ms more" if self.compare is difference else f"{self.goal:g}"
        return f"at {'least' if self.at_least else 'most'} {goal}"


class Outcome(NamedTuple):
    """The result of a row.

    ``row``     the row
    ``spread``  of the compared rounds; None if there is no value
    ``holds``   whether the result meets the goal; None without a goal or a value
    ``reason``  why there is no value; "" if there is one
    ``doubt``   why another run may well have another result; "" for no reason
    ``before``  the result of the other checkout in the same run; None without one
    """

    row: Row
    spread: Spread | None
    holds: bool | None
    reason: str = ""
    doubt: str = ""
    before: float | None = None


def outcome(row: Row, results: Results) -> Outcome:
    """Compare the medians of the two contestants of a row, and the result with the goal."""
    measured = results.measured.get(row.workload)
    if measured is None:
        return Outcome(row, None, None, "not part of this run")
    if measured.not_run:
        return Outcome(row, None, None, measured.not_run)
    ours = measured.values(row.contestant, row.metric)
    if row.yardstick is None:
        theirs = measured.values(row.against, row.metric)
    else:
        theirs = [row.yardstick] * len(ours)
    for name, values in ((row.contestant, ours), (row.against, theirs)):
        if not values:
            return Outcome(row, None, None, f"{name}: {measured.skipped.get(name, 'not measured')}")
    found = row.compare(statistics.median(ours), statistics.median(theirs))
    by_round = [row.compare(one, other) for one, other in zip(ours, theirs, strict=True)]
    spread = Spread(found, min(by_round), max(by_round))
    return Outcome(row, spread, _holds(row, found), "", _doubt(measured, row.metric), _before(row, measured))


def _before(row: Row, measured: Measured) -> float | None:
    """The result of the other checkout: against its own contestant if ``row`` compares two of ours."""
    ours = measured.values(row.contestant + BEFORE, row.metric)
    theirs = measured.values(row.against + BEFORE, row.metric) or measured.values(row.against, row.metric)
    if not ours:
        return None
    return row.compare(statistics.median(ours), statistics.median(theirs) if theirs else row.yardstick or 0.0)


def _doubt(measured: Measured, metric: str) -> str:
    load = statistics.median(measured.loads) if measured.loads else 0.0
    if load > MAX_LOAD and metric not in COUNTS:
        return f"the load by other processes was {load:.1f}"
    rounds = 0 if metric in COUNTS else len(measured.loads)
    return f"only {rounds} of {MIN_ROUNDS} rounds" if 0 < rounds < MIN_ROUNDS else ""


def _holds(row: Row, value: float) -> bool | None:
    if row.goal is None:
        return None
    return value >= row.goal if row.at_least else value <= row.goal


def _whole_answers(loop: str, concurrency: int, aclient: float) -> list[Row]:
    workload = f"complete-{concurrency}-{loop}"
    goals = {"httpx": 0.10, "openai": 0.10, "aiohttp": 0.75, "floor": 2.9}
    if loop == "uvloop":
        goals |= {"aiohttp": 0.95, "floor": 6.5}
    rows = [Row(workload, "acomplete", peer, goal) for peer, goal in goals.items()]
    return [*rows, Row(workload, "aclient", "httpx", aclient)]


def _events(loop: str) -> list[Row]:
    goals = {"floor": 1.35, "httpx": 0.5, "openai": 0.3, "aiohttp": 0.68 if loop == "asyncio" else 0.95}
    return [Row(f"stream-{loop}", "acomplete", peer, goal) for peer, goal in goals.items()]


def _in_turn(client: str, goal: float | None = None) -> Row:
    return Row("in-turn", client, "20 round trips", goal, "wall", yardstick=20 * ROUND_TRIP)


def _at_once(client: str, goal: float | None = None) -> Row:
    return Row("burst", client, "one call on a new connection", goal, "wall")


def _view(peer: str, goal: float) -> Row:
    return Row("view", "llm_pool", peer, goal, "per_cpu_second", at_least=True)


def _streaming_view(browsers: int) -> list[Row]:
    goals = {"openai, shared": 0.22, "openai on aiohttp, shared": 0.36}
    return [Row(f"browsers-{browsers}", "llm_pool", peer, goal) for peer, goal in goals.items()]


def _counted(workload: str, contestant: str, what: str, goal: int, metric: str) -> Row:
    return Row(workload, contestant, what, goal, metric, count, yardstick=goal)


ROWS = [
    _counted("functions", "acomplete", "all functions", 320, "functions"),
    _counted("functions", "acomplete", "Python's functions", 190, "python"),
    _counted("functions-http2", "acomplete", "all functions", 900, "functions"),
    _counted("dials", "acomplete, default limits", "dials", 300, "dials"),
    *_whole_answers("asyncio", 50, aclient=0.20),
    *_whole_answers("asyncio", 200, aclient=0.15),
    *_whole_answers("uvloop", 50, aclient=0.20),
    *_whole_answers("uvloop", 200, aclient=0.15),
    Row("observed", "acomplete+metrics", "acomplete", 1.05, "times", yardstick=1.0),
    Row("growth", "acomplete, 1000", "acomplete, 10", 1.15),
    Row("growth", "floor, 1000", "floor, 10", None),
    *_events("asyncio"),
    *_events("uvloop"),
    Row("http2", "acomplete", "httpx", 0.17),
    Row("threads", "complete", "httpx.Client", 0.13),
    Row("threads", "complete", "openai.OpenAI", 0.2),
    Row("threads", "complete", "requests", None),
    _in_turn("acomplete", 1.05),
    *map(_in_turn, ("floor", "httpx", "openai", "httpx, one per call", "openai, one per call")),
    _at_once("acomplete", 1.07),
    *map(_at_once, ("httpx", "httpx2", "aiohttp")),
    Row("memory", "acomplete", "httpx", 0.4, "bytes"),
    _view("openai, shared", 3.0),
    _view("openai, one per request", 10.0),
    *_streaming_view(100),
    *_streaming_view(400),
    Row("import", "llm_pool", "Django and httpx", 0.035, compare=difference),
    Row("import", "llm_pool and its metrics", "Django and httpx", None, compare=difference),
]
