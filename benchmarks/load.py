"""Users let loose on the demo, and what it shows held against what its upstream counted.

Start ``make demo``, and then ``python -m benchmarks.load --users 50 --seconds 20``. The demo is to have no
other users meanwhile. The exit status is 1 where the status page or ``/metrics`` is off by more than one
percent. What cannot be looked at in the same moment is known within a margin only, which the table tells.
With fewer users than the pool has connections, more may be "reused" than were counted: a connection that
nobody waited for any more when it came about idles before its first call, and the upstream cannot tell.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.load_users import Seen, use
from benchmarks.load_watch import Look, Watch, difference

TOLERANCE = 0.01
NOT_THE_DEMO = "There is no demo with an upstream of its own at"


class Row(NamedTuple):
    """One number, as each of them has it; None where one does not say. ``margin`` is that of ``counted``."""

    name: str
    counted: float
    page: float | None
    metrics: float | None
    margin: float = 0.0

    def is_off(self) -> bool:
        """Whether anything that is shown is wrong."""
        shown = [each for each in (self.page, self.metrics) if each is not None]
        return any(abs(each - self.counted) > self.counted * TOLERANCE + self.margin for each in shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000/", help="where the demo is")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    try:
        rows, seen = asyncio.run(load(options.url, options.users, options.seconds))
    except httpx.HTTPError as error:
        print(f"{NOT_THE_DEMO} {options.url}: {error or type(error).__name__}", file=sys.stderr)
        return 2
    report(rows, seen)
    return int(any(row.is_off() for row in rows))


async def load(url: str, users: int, seconds: float) -> tuple[list[Row], Seen]:
    """Use the demo, watch it, and compare."""
    seen = Seen()
    async with Watch(url) as watch:
        before = await watch.settled()
        using = asyncio.create_task(use(url, users, seconds, seen))
        looks = await watch.watch(seconds)
        await using
        after = await watch.settled()
    return list(compare(before, looks, after, seen)), seen


def compare(before: Look, looks: list[Look], after: Look, seen: Seen) -> Iterator[Row]:
    """What was shown and what was counted."""
    page = difference(after.page, before.page)
    metrics = difference(after.metrics, before.metrics)
    counted = difference(after.counted, before.counted)
    in_vain = [shown["pool_timeouts"] + shown["refused"] for shown in (page, metrics)]
    asked = [shown["requests"] - vain for shown, vain in zip((page, metrics), in_vain, strict=True)]
    yield Row("calls in vain", seen.errors["PoolTimeout"] + seen.errors["PoolFull"], *in_vain)
    yield Row("requests", counted["requests"], *asked)
    yield Row("connections", counted["connections"], page["opened"], metrics["opened"])
    yield Row("reused", counted["reuses"], page["reused"], metrics["reused"])
    yield _utilization(looks)
    # Of the time that users waited for an answer, what the upstream did not take was the pool's.
    waited = seen.first_byte - counted["first_byte"]
    apart = statistics.mean(seen.apart) if seen.apart else 0.0
    yield Row("seconds waited", waited, None, metrics["waited"], apart * seen.calls)


def _utilization(looks: list[Look]) -> Row:
    """The mean. The margin is two standard errors of the differences between what was seen in each look."""
    most = looks[-1].page["max_connections"]
    counted = [look.counted["in_progress"] / most for look in looks]
    page = [look.page["in_use"] / most for look in looks]
    metrics = [look.metrics["in_use"] / most for look in looks]
    errors = [
        statistics.pstdev(a - b for a, b in zip(shown, counted, strict=True)) / len(looks) ** 0.5
        for shown in (page, metrics)
    ]
    means = [statistics.mean(each) for each in (counted, page, metrics)]
    return Row("utilization, mean", *means, 2 * max(errors))


def report(rows: list[Row], seen: Seen) -> None:
    """To the terminal."""
    table = Table(title=f"{seen.calls} calls, {seen.left} of them left in the middle")
    table.add_column("")
    for name in ("counted", "margin", "page", "off by", "/metrics", "off by"):
        table.add_column(name, justify="right")
    for row in rows:
        shown = [text for value in (row.page, row.metrics) for text in (_number(value), _off_by(value, row))]
        margin = f"± {row.margin / row.counted:.2%}" if row.margin and row.counted else ""
        table.add_row(row.name, _number(row.counted), margin, *shown, style="red" if row.is_off() else None)
    Console().print(table)
    if seen.errors:
        print("errors that users saw:", ", ".join(f"{name} {n}" for name, n in seen.errors.items()))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def _off_by(shown: float | None, row: Row) -> str:
    if shown is None or not row.counted:
        return ""
    return f"{shown / row.counted - 1:+.2%}"


if __name__ == "__main__":
    sys.exit(main())
