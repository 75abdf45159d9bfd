"""Write ``docs/benchmarks.md`` and the files in ``docs/benchmarks/`` from one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report.notes import METHOD, NOTES, READING
from benchmarks.report.plots import PLOTS, draw
from benchmarks.report.table import verdict
from benchmarks.report.units import cells
from benchmarks.results import Measured, Results
from benchmarks.rows import ROWS, outcome
from benchmarks.workloads import OURS, WORKLOADS

__all__ = ["text", "write_document"]


def write_document(results: Results, folder: Path) -> None:
    """Write ``benchmarks.md``, and ``benchmarks/`` with the plots and the measures in JSON."""
    beside = folder / "benchmarks"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "results.json").write_text(json.dumps(results.as_json(), indent=1) + "\n")
    drawn = [(plot.title, draw(plot, results, beside)) for plot in PLOTS]
    pictures = [f"![{title}]({path.relative_to(folder)})" for title, path in drawn if path is not None]
    (folder / "benchmarks.md").write_text(text(results, pictures))


def text(results: Results, pictures: Sequence[str] = ()) -> str:
    """The document in Markdown; ``pictures`` are lines that show the plots."""
    workloads = [_workload(measured) for measured in results.measured.values()]
    sections = [METHOD.rstrip(), _run(results), _goals(results), _losses(results), *pictures]
    sections += ["## All measures", "Medians over the rounds of each.", *workloads]
    return "\n\n".join([*sections, READING])


def _run(results: Results) -> str:
    lines = [f"The last run: {results.date}, {results.seconds / 60:.0f} minutes.", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines.append("- " + ", ".join(f"{name} {version}" for name, version in results.versions.items()))
    return "\n".join(lines)


def _goals(results: Results) -> str:
    lines = []
    for row in ROWS:
        found = outcome(row, results)
        measured = found.reason
        if found.spread is not None:
            least, most = row.shown(found.spread.least), row.shown(found.spread.most)
            measured = (
                f"**{row.shown(found.spread.median)}** ({least} to {most}){' *' if found.doubt else ''}"
            )
        goal, before = row.shown_goal or "none", "" if found.before is None else row.shown(found.before)
        lines.append([row.work, row.contestant, row.against, goal, before, measured, verdict(found)])
    headings = ["work", "measured", "compared with", "goal", "before", "result", ""]
    if not any(line[4] for line in lines):
        for line in (headings, *lines):
            del line[4]
    doubts = {(row.work, found.doubt) for row in ROWS if (found := outcome(row, results)).doubt}
    marked = "".join(f"\n\n\\* {work}: {doubt}." for work, doubt in sorted(doubts))
    return "## Goals\n\n" + _table(headings, _without_repeats(lines)) + marked


def _losses(results: Results) -> str:
    lines = ["## Where we lose", ""]
    for row in ROWS:
        found = outcome(row, results)
        if found.holds is False and found.spread is not None:
            result = f"`{row.contestant}` against {row.against} is {row.shown(found.spread.median)}"
            note = " ".join(NOTES.get((row.workload.partition("-")[0], row.against), "").split())
            lines.append(f"- {row.work}: {result}; the goal is {row.shown_goal}. {note}")
    for measured in results.measured.values():
        for peer, times in _cheaper(measured):
            lines.append(f"- {WORKLOADS[measured.name].title}: {peer} needs {times:.2f} of our CPU.")
    return "\n".join(line.rstrip() for line in lines)


def _cheaper(measured: Measured) -> Iterator[tuple[str, float]]:
    """Yield each peer that needs less CPU than our first contestant: its label, and its share of our CPU."""
    ours, *others = [contestant.label for contestant in WORKLOADS[measured.name].contestants]
    theirs = measured.values(ours, "cpu")
    for peer in others:
        values = measured.values(peer, "cpu")
        if ours.startswith(OURS) and not peer.startswith((*OURS, "floor")) and values and theirs:
            times = statistics.median(one / other for one, other in zip(values, theirs, strict=True))
            if times < 1:
                yield peer, times


def _workload(measured: Measured) -> str:
    title = f"### {WORKLOADS[measured.name].title}"
    if measured.not_run:
        return f"{title}\n\nNot run: {measured.not_run}."
    headings, lines = cells(measured)
    skipped = "".join(f"\n\n{name} is skipped: {reason}" for name, reason in measured.skipped.items())
    return f"{title}\n\n{_table(headings, lines)}{skipped}"


def _table(headings: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *(["---"] if headings[0] else ["---:"]) * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def _without_repeats(lines: list[list[str]]) -> list[list[str]]:
    """Empty the first cell of each line if the line before has the same."""
    firsts = [None, *(line[0] for line in lines)]
    return [
        ["" if line[0] == last else line[0], *line[1:]] for line, last in zip(lines, firsts, strict=False)
    ]
