"""The tables for the terminal."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table

from benchmarks.report.units import cells
from benchmarks.results import Measured, Results
from benchmarks.rows import ROWS, Outcome, outcome
from benchmarks.workloads import WORKLOADS

__all__ = ["print_goals", "print_workload", "verdict"]

WIDTHS = (24, 28, 18, 9, 22, 13)
COLOURS = {True: "green", False: "red", None: ""}


def print_workload(measured: Measured, console: Console) -> None:
    """Print the measures of one workload, and the reasons for the contestants that are missing."""
    table = Table(title=WORKLOADS[measured.name].title, title_justify="left", title_style="bold")
    if measured.not_run:
        console.print(f"[bold]{WORKLOADS[measured.name].title}[/]: not run: {measured.not_run}")
        return
    headings, lines = cells(measured)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for contestant, reason in measured.skipped.items():
        console.print(f"{contestant} is skipped: {reason}", highlight=False)


def print_goals(results: Results, console: Console) -> None:
    """Print every row of the run's workloads, and whether its goal holds."""
    rows = [row for row in ROWS if row.workload in results.measured]
    for work, group in groupby(rows, key=lambda row: row.work):
        table = Table(title=work, title_justify="left", title_style="bold", box=None, show_header=False)
        for width in WIDTHS:
            table.add_column(width=width)
        for row in group:
            found = outcome(row, results)
            measured, between = "", found.reason
            if found.spread is not None:
                measured, least, most = map(row.shown, found.spread)
                between = f"{least} to {most}{' *' if found.doubt else ''}"
            if found.before is not None:
                between += f"\nbefore {row.shown(found.before)}"
            texts = (row.contestant, row.against, row.shown_goal, measured, between, verdict(found))
            table.add_row(*texts, style=COLOURS[found.holds])
        console.print(table)


def verdict(found: Outcome) -> str:
    """Whether the goal holds, as text; "" without a goal."""
    if found.row.goal is None:
        return ""
    return {True: "holds", False: "does not hold", None: "not measured"}[found.holds]
