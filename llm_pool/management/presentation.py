"""Prints reports: as plain text, or in colours in a terminal if the package ``rich`` is installed.

The options ``--force-color`` and ``--no-color`` override the check for a terminal.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

from django.core.management.base import OutputWrapper

from llm_pool.conf.reader import Problem
from llm_pool.diagnostics import CheckReport, Finding, Level, Step, Verdict

__all__ = ["Printer", "progress"]

TITLES = {
    "connection": "Connection",
    "dns": "DNS",
    "tcp": "TCP",
    "tunnel": "Proxy tunnel",
    "tls": "TLS",
    "authentication": "Authentication",
    "reuse": "Reuse",
    "http2": "HTTP/2",
    "rate_limits": "Rate limits",
    "live": "Live calls",
    "settings": "Settings",
}
LABELS = {
    Level.SKIPPED: "-",
    Level.OK: "ok",
    Level.NOTE: "note",
    Level.WARNING: "WARN",
    Level.ERROR: "FAIL",
}
STYLES = {
    Level.SKIPPED: "dim",
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.WARNING: "bold yellow",
    Level.ERROR: "bold red",
}
OUTCOMES = {
    Verdict.HEALTHY: (Level.OK, "is healthy"),
    Verdict.WARNINGS: (Level.WARNING, "works, with warnings: see"),
    Verdict.BROKEN: (Level.ERROR, "is broken: see"),
}
INDENT = 34  # columns before the text of a finding
PLAIN_WIDTH = 100
MIN_WIDTH = 60
PROGRESS_WIDTH = 70  # columns of the progress line


class Row(NamedTuple):
    """One line of the output.

    ``line``   the text
    ``level``  the level whose label is at the beginning of the line; None if the line has no label
    """

    line: str
    level: Level | None = None


class Printer:
    """Writes reports to ``out``.

    ``color`` is True for colours, False for plain text, and None for colours in a terminal only. Without the
    package ``rich`` the output is always plain text.
    """

    def __init__(self, out: OutputWrapper, *, color: bool | None) -> None:
        self._out = out
        is_terminal = out.isatty()
        self._width = max(MIN_WIDTH, shutil.get_terminal_size().columns) if is_terminal else PLAIN_WIDTH
        self._rich = find_spec("rich") is not None and (is_terminal if color is None else color)

    def report(self, report: CheckReport) -> None:
        """Write the report on one pool."""
        self._write(list(_report_rows(report, self._width)))

    def problems(self, problems: list[Problem]) -> None:
        """Write the problems in ``settings.LLM_POOL``. Pools with such problems are not checked."""
        rows: list[Row] = []
        for problem in problems:
            rows += _labelled(Level.ERROR, f"llm_pool.{problem.id}", "", problem.message, self._width)
            rows += _advice(problem.hint, self._width)
        self._write([*rows, Row("")])

    def _write(self, rows: list[Row]) -> None:
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        rows = [
            row._replace(line=row.line.encode(encoding, "backslashreplace").decode(encoding)) for row in rows
        ]
        if self._rich:
            self._out.write(_colored(rows, self._width))
        else:
            self._out.write("\n".join(row.line for row in rows))


@contextmanager
def progress(alias: str) -> Iterator[Callable[[str], None]]:
    """Show progress on stderr until the block ends. Does nothing if stderr is not a terminal.

    Yields a function: call it with the name of a step when the step begins. ``alias`` is the pool's name.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
    elif find_spec("rich") is not None:
        from rich.console import Console  # noqa: PLC0415  rich may not be installed
        from rich.text import Text  # noqa: PLC0415

        with Console(stderr=True).status("") as status:
            yield lambda step: status.update(Text(f"{alias}: {TITLES[step]}"))
    else:
        try:
            yield lambda step: _overwrite(f"{alias}: {TITLES[step]} ...")
        finally:
            _overwrite("")


def _overwrite(text: str) -> None:
    sys.stderr.write(f"\r{text[:PROGRESS_WIDTH]:<{PROGRESS_WIDTH}}\r")
    sys.stderr.flush()


def _colored(rows: list[Row], width: int) -> str:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(force_terminal=True, width=width, legacy_windows=False)
    with console.capture() as captured:
        for row in rows:
            text = Text(row.line)
            if row.level is not None:
                text.stylize(STYLES[row.level], 0, len("  ") + max(map(len, LABELS.values())))
            console.print(text, soft_wrap=True)
    return captured.get().rstrip("\n")


def _report_rows(report: CheckReport, width: int) -> Iterator[Row]:
    yield Row(f"{report.pool}: {report.provider} at {report.base_url}, engine {report.engine}")
    yield Row("")
    for step in report.steps:
        yield from _step_rows(step, width)
    level, outcome = OUTCOMES[report.verdict]
    where = ", ".join(TITLES[step.name] for step in report.steps if step.level == level != Level.OK)
    yield Row("")
    yield Row(f"  {LABELS[level]:<5}{' '.join(filter(None, (report.pool, outcome, where)))}", level)
    yield Row("")


def _step_rows(step: Step, width: int) -> Iterator[Row]:
    title, seconds = TITLES[step.name], "" if step.seconds is None else _as_text(step.seconds)
    for finding in step.findings:
        yield from _finding_rows(finding, title, seconds, width)
        title = seconds = ""


def _finding_rows(finding: Finding, title: str, seconds: str, width: int) -> Iterator[Row]:
    yield from _labelled(finding.level, title, seconds, finding.text, width)
    yield from _advice(finding.advice, width)


def _labelled(level: Level, title: str, seconds: str, text: str, width: int) -> Iterator[Row]:
    head = f"  {LABELS[level]:<5}{title:<15}{seconds:>10}  "
    first, *rest = textwrap.wrap(text, width - INDENT, break_on_hyphens=False) or [""]
    yield Row(f"{head}{first}".rstrip(), level)
    for line in rest:
        yield Row(" " * INDENT + line)


def _advice(text: str, width: int) -> Iterator[Row]:
    for number, line in enumerate(textwrap.wrap(text, width - INDENT - 3, break_on_hyphens=False)):
        yield Row(" " * INDENT + ("-> " if number == 0 else "   ") + line)


def _as_text(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
