"""Measure the pool and its peers: ``python -m benchmarks``.

The exit status is 0 if the run ended, whether the goals hold or not.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.facts import machine, versions
from benchmarks.report.document import write_document
from benchmarks.report.table import print_goals, print_workload
from benchmarks.results import Results
from benchmarks.rounds import run
from benchmarks.workloads import WORKLOADS, with_before

FILE_WIDTH = 130  # columns, if the output is not a terminal


def main() -> None:
    """Measure (or read an earlier run), print the tables, and write the document if asked to."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # SystemExit ends the blocks that run the servers
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    if options.report:
        results = Results.from_json(json.loads(options.report.read_text()))
    else:
        results = _measure(options, console)
    for measured in results.measured.values():
        print_workload(measured, console)
    print_goals(results, console)
    if options.output is not None:
        write_document(results, options.output)
        console.print(f"Written to {options.output}/benchmarks.md and {options.output}/benchmarks/")


def _measure(options: argparse.Namespace, console: Console) -> Results:
    workloads = [WORKLOADS[name] for name in options.workloads]
    if options.rounds:
        workloads = [replace(workload, rounds=options.rounds) for workload in workloads]
    if options.before:
        workloads = [
            with_before(workload, str(options.before.resolve(strict=True))) for workload in workloads
        ]
    facts, began = machine(), time.monotonic()
    with console.status("") as status:
        scale = 0.2 if options.quick else 1.0
        measured = run(workloads, options.minutes * 60, scale, status.update)
    seconds = time.monotonic() - began
    return Results(f"{datetime.now(UTC):%Y-%m-%d}", seconds, facts, versions(), measured)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = list(WORKLOADS)
    some = f"one or more of: {', '.join(names)}; default: all"
    parser.add_argument("--workloads", nargs="+", metavar="NAME", choices=names, default=names, help=some)
    parser.add_argument("--rounds", type=int, help="of every workload; default: the workload's own number")
    parser.add_argument("--quick", action="store_true", help="measure a fifth as long: to see that it runs")
    parser.add_argument(
        "--before", type=Path, metavar="PATH", help="measure another checkout of this project beside this one"
    )
    parser.add_argument("--minutes", type=float, default=18.0, help="start no round that would end later")
    parser.add_argument(
        "--output", type=Path, help="write benchmarks.md into this folder, plots and JSON into benchmarks/"
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing; report on this run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
