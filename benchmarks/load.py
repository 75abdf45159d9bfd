"""Send users to the demo, and compare the numbers that it shows with those that its upstream counted.

Start ``make demo``, and then ``python -m benchmarks.load --users 50 --seconds 20``. The demo must have no
other users meanwhile. The exit status is 1 if the status page or ``/metrics`` is off by more than one percent
and the margin. A number has a margin, shown in the table, if its sources cannot be read at the same moment.

With fewer users than the pool has connections, the pool may show more "reused" than the upstream counted. A
call may get another connection than the one opened for it. The new connection is then idle before its first
call. The pool counts that first call as reused; the upstream cannot.
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
    """One number from each source.

    ``name``     what was counted
    ``counted``  by the upstream, or by the users
    ``page``     as the status page shows it; None if it does not
    ``metrics``  as ``/metrics`` shows it; None if it does not
    ``margin``   by how much ``counted`` may be wrong
    """

    name: str
    counted: float
    page: float | None
    metrics: float | None
    margin: float = 0.0

    def is_off(self) -> bool:
        """Whether the page or ``/metrics`` differs by more than one percent and the margin."""
        shown = [each for each in (self.page, self.metrics) if each is not None]
        return any(abs(each - self.counted) > self.counted * TOLERANCE + self.margin for each in shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0, 1 if a number is off, 2 if there is no demo."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000/", help="of the demo")
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
    """Send ``users`` users to the demo for ``seconds`` seconds; return the comparison and what the users saw.

    Raises httpx.HTTPError if there is no demo at ``url``, and TimeoutError if its numbers do not settle.
    """
    seen = Seen()
    async with Watch(url) as watch:
        before = await watch.settled()
        using = asyncio.create_task(use(url, users, seconds, seen))
        looks = await watch.watch(seconds)
        await using
        after = await watch.settled()
    return list(compare(before, looks, after, seen)), seen


def compare(before: Look, looks: list[Look], after: Look, seen: Seen) -> Iterator[Row]:
    """Compare the numbers, as they have grown from ``before`` to ``after``, and in the ``looks`` between."""
    page = difference(after.page, before.page)
    metrics = difference(after.metrics, before.metrics)
    counted = difference(after.counted, before.counted)
    unsent = [shown["pool_timeouts"] + shown["refused"] for shown in (page, metrics)]
    sent = [shown["requests"] - calls for shown, calls in zip((page, metrics), unsent, strict=True)]
    yield Row("calls without a connection", seen.errors["PoolTimeout"] + seen.errors["PoolFull"], *unsent)
    yield Row("requests", counted["requests"], *sent)
    yield Row("connections", counted["connections"], page["opened"], metrics["opened"])
    yield Row("reused", counted["reuses"], page["reused"], metrics["reused"])
    yield _utilization(looks)
    # The time to the first byte is the wait for a connection plus the upstream's time.
    waited = seen.first_byte - counted["first_byte"]
    difference_per_call = statistics.mean(seen.clock_differences) if seen.clock_differences else 0.0
    yield Row("seconds waited", waited, None, metrics["waited"], difference_per_call * seen.calls)


def _utilization(looks: list[Look]) -> Row:
    """The mean utilization. The margin is two standard errors of the difference between the sources."""
    max_connections = looks[-1].page["max_connections"]
    counted = [look.counted["in_progress"] / max_connections for look in looks]
    page = [look.page["in_use"] / max_connections for look in looks]
    metrics = [look.metrics["in_use"] / max_connections for look in looks]
    errors = [
        statistics.pstdev(a - b for a, b in zip(shown, counted, strict=True)) / len(looks) ** 0.5
        for shown in (page, metrics)
    ]
    means = [statistics.mean(each) for each in (counted, page, metrics)]
    return Row("utilization, mean", *means, 2 * max(errors))


def report(rows: list[Row], seen: Seen) -> None:
    """Print the comparison to the terminal."""
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
