"""Run ``python -m demo_project`` as a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LIMIT", "Demo", "environment", "run", "started"]

ROOT = Path(__file__).parents[2]
LIMIT = 15.0
"""Seconds that each step of a demo may take."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo_project", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """The environment without a provider's variables and Django's settings, and with a simulated upstream."""
    dropped = ("OPENAI_", "DEMO_", "DJANGO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "DEMO_UPSTREAM": "simulated", **variables}


class Demo:
    """A running demo, and its output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""

    def read_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if found := re.search(r"http://\S+", line):
                return found[0]
        raise AssertionError(f"the demo ended without a URL: {self.output}")

    def upstream(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        rest, _ = self.process.communicate(timeout=LIMIT)
        self.output += rest
        return self.process.returncode


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a demo command that exits at once."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


@contextlib.contextmanager
def started(variables: dict[str, str]) -> Iterator[Demo]:
    """Run a demo on a free port, and kill it at the end; its upstream then exits as well."""
    process = subprocess.Popen(
        command("--port", "0"),
        cwd=ROOT,
        env=variables,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield Demo(process)
        finally:
            process.kill()
