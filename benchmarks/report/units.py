"""Measures as text, with units."""

from __future__ import annotations

import statistics

from benchmarks.results import Measured

__all__ = ["COLUMNS", "cells"]

COLUMNS = {
    "cpu": ("CPU each", lambda value: f"{value * 1e6:,.0f} µs" if value < 0.02 else f"{value * 1e3:,.0f} ms"),
    "functions": ("functions", lambda value: f"{value:,.0f}"),
    "python": ("in Python", lambda value: f"{value:,.0f}"),
    "dials": ("dials", lambda value: f"{value:,.0f}"),
    "times": ("times the CPU without", lambda value: f"{value:.3f}"),
    "rate": ("per second", lambda value: f"{value:,.0f}"),
    "per_cpu_second": ("per second of CPU", lambda value: f"{value:,.0f}"),
    "wall": ("time", lambda value: f"{value * 1e3:,.0f} ms"),
    "p50": ("p50", lambda value: f"{value * 1e3:,.1f} ms"),
    "p99": ("p99", lambda value: f"{value * 1e3:,.1f} ms"),
    "behind": ("last token late by", lambda value: f"{value * 1e3:,.0f} ms"),
    "bytes": ("memory each", lambda value: f"{value / 1024:,.1f} KiB"),
    "memory": ("peak memory", lambda value: f"{value / 2**20:,.0f} MiB"),
}
"""The heading of each metric, and a function that formats a value."""


def cells(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """The table of a workload: headings, and a line for each contestant with the medians of its rounds."""
    metrics = [name for name in COLUMNS if any(name in each[0] for each in measured.rounds.values())]
    lines = []
    for contestant in measured.rounds:
        line = [contestant]
        for metric in metrics:
            values = measured.values(contestant, metric)
            line.append(COLUMNS[metric][1](statistics.median(values)) if values else "")
        lines.append(line)
    return ["", *(COLUMNS[name][0] for name in metrics)], lines
