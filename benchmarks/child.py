"""Run a worker in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from benchmarks.install import ROOT, interpreter

__all__ = ["Failed", "environment", "work"]

TIMEOUT = 150.0  # seconds


class Failed(Exception):
    """A client could not do its work; the message has the worker's last error."""


def environment(checkout: str) -> dict[str, str]:
    """The environment of a process that measures the ``llm_pool`` of ``checkout``; "" for ours."""
    return {**os.environ, "BENCHMARK_CHECKOUT": checkout}


def work(task: dict[str, Any], checkout: str = "") -> dict[str, Any]:
    """Run ``benchmarks.worker`` for ``task`` and return its output. ``checkout`` is that of ``environment``.

    Raises Failed if the worker ends with an error or takes more than ``TIMEOUT`` seconds.
    """
    command = [interpreter(task["client"]), "-m", "benchmarks.worker", json.dumps(task)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            cwd=ROOT,
            env=environment(checkout),
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done after {TIMEOUT:g} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Failed(next((line for line in reversed(lines) if not line.startswith(" ")), lines[-1]))
    found: dict[str, Any] = json.loads(done.stdout)
    return found
