"""The tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.report.units import cells
from benchmarks.results import Measured, Results
from benchmarks.rows import ROWS, Outcome, outcome
from benchmarks.workloads import WORKLOADS

__all__ = ["print_goals", "print_workload", "verdict"]


def print_workload(measured: Measured, console: Console) -> None:
    """All contestants of one workload."""
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
    """Every row that this run has to do with."""
    table = Table(title="Goals", title_justify="left", title_style="bold")
    for heading in ("work", "", "against", "goal", "measured", "between", ""):
        table.add_column(heading)
    work = ""
    for row in ROWS:
        if row.workload not in results.measured:
            continue
        found = outcome(row, results)
        shown = row.work if row.work != work else ""
        work = row.work
        measured, between = "", found.reason
        if found.spread is not None:
            measured = row.shown(found.spread.median)
            between = f"{row.shown(found.spread.least)} to {row.shown(found.spread.most)}"
        colour = {True: "green", False: "red", None: ""}[found.holds]
        table.add_row(
            shown,
            row.contestant,
            row.against,
            row.shown_goal,
            measured,
            between,
            verdict(found),
            style=colour,
        )
    console.print(table)


def verdict(found: Outcome) -> str:
    """Whether the goal holds, in words."""
    if found.row.goal is None:
        return ""
    return {True: "holds", False: "does not hold", None: "not measured"}[found.holds]
