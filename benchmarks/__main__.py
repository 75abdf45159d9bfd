"""Measure the pool and its peers: ``python -m benchmarks``.

The exit status says whether it ran, not whether the goals hold.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.install import ROOT
from benchmarks.machine import facts, versions
from benchmarks.report.document import write_document
from benchmarks.report.table import print_goals, print_workload
from benchmarks.results import Results
from benchmarks.rounds import run
from benchmarks.workloads import WORKLOADS

DOCS = ROOT / "docs"
JSON = "results.json"


def main() -> None:
    """Measure, print, and write what was measured."""
    options = _options()
    console = Console()
    if options.report:
        results = Results.from_json(json.loads(options.report.read_text()))
        for measured in results.measured.values():
            print_workload(measured, console)
    else:
        results = _measure(options, console)
    print_goals(results, console)
    if options.output is not None:
        write_document(results, options.output)
        console.print(f"Written to {options.output}/benchmarks.md and {options.output}/benchmarks/")


def _measure(options: argparse.Namespace, console: Console) -> Results:
    results = Results(f"{datetime.now(UTC):%Y-%m-%d}", 0.0, facts(), versions())
    began = time.monotonic()
    for name in options.workloads:
        workload = WORKLOADS[name]
        rounds = options.rounds or (2 if options.quick else workload.rounds)
        with console.status(workload.title) as status:
            measured = run(workload, rounds, 0.2 if options.quick else 1.0, status.update)
        results.measured[name] = measured
        print_workload(measured, console)
    results.seconds = time.monotonic() - began
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = list(WORKLOADS)
    some = f"some of: {', '.join(names)}"
    parser.add_argument("--workloads", nargs="+", metavar="NAME", choices=names, default=names, help=some)
    parser.add_argument("--rounds", type=int, help="of every workload; each has its own number")
    parser.add_argument("--quick", action="store_true", help="two short rounds of each: to see that it runs")
    parser.add_argument(
        "--output", type=Path, help="a folder for benchmarks.md, with plots and JSON beneath it"
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing; tell of this run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
