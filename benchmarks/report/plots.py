"""Bar charts of a run, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.results import Results
from benchmarks.rows import Spread
from benchmarks.workloads import WORKLOADS

__all__ = ["PLOTS", "Plot", "draw"]

OURS, FLOOR, PEERS = "#2563eb", "#9ca3af", "#d97706"


class Plot(NamedTuple):
    """One chart.

    ``name``       of the file, without ".svg"
    ``title``      above the chart
    ``axis``       the label of the axis
    ``workloads``  the names of the workloads whose contestants are shown
    ``metric``     what is shown: a key of ``results.Round``
    ``scale``      the factor that converts the metric into the axis's unit
    """

    name: str
    title: str
    axis: str
    workloads: Sequence[str]
    metric: str
    scale: float


PLOTS = [
    Plot(
        "calls",
        "A whole answer, HTTP/1.1, 50 concurrent, asyncio",
        "CPU per call in µs, logarithmic",
        ("complete-50-asyncio", "others-asyncio"),
        "cpu",
        1e6,
    ),
    Plot("events", WORKLOADS["stream-asyncio"].title, "CPU per event in µs", ("stream-asyncio",), "cpu", 1e6),
    Plot("distance", WORKLOADS["in-turn"].title, "seconds", ("in-turn",), "wall", 1.0),
]


def draw(plot: Plot, results: Results, folder: Path) -> Path | None:
    """Write the chart into ``folder`` and return its path; None if nothing of it was measured.

    A bar is the median of the rounds; the whiskers reach from the smallest to the largest.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    spreads: dict[str, Spread] = {}
    for workload in plot.workloads:
        measured = results.measured.get(workload)
        for contestant in measured.rounds if measured else ():
            values = [value * plot.scale for value in measured.values(contestant, plot.metric)]
            spreads.setdefault(contestant, Spread.of(values))
    if not spreads:
        return None
    spreads = dict(sorted(spreads.items(), key=lambda item: -item[1].median))
    figure = Figure(figsize=(8, 0.8 + 0.36 * len(spreads)), layout="constrained")
    axes = figure.add_subplot()
    medians = [each.median for each in spreads.values()]
    below = [each.median - each.least for each in spreads.values()]
    above = [each.most - each.median for each in spreads.values()]
    bars = axes.barh(list(spreads), medians, xerr=[below, above], color=list(map(_colour, spreads)))
    axes.bar_label(bars, [f"{each:,.3g}" if each < 100 else f"{each:,.0f}" for each in medians], padding=4)
    if "logarithmic" in plot.axis:
        axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_title(plot.title, loc="left", fontsize=11)
    axes.set_xlabel(plot.axis)
    axes.spines[["top", "right"]].set_visible(False)
    path = folder / f"{plot.name}.svg"
    with mpl.rc_context({"svg.hashsalt": plot.name}):  # the same run always makes the same file
        figure.savefig(path, metadata={"Date": None})
    return path


def _colour(contestant: str) -> str:
    if contestant.startswith(("acomplete", "aclient")):
        return OURS
    return FLOOR if contestant == "floor" else PEERS
