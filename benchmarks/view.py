"""Measure a Django view under uvicorn with one worker: requests per second of CPU time."""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from benchmarks.child import work
from benchmarks.clients import Target
from benchmarks.machine import client_core, held_to
from testbed.process import free_port, running

__all__ = ["measure"]

CONCURRENCY = 32


def measure(view: str, upstream: Target, directory: Path, seconds: float) -> dict[str, float | str]:
    """Call a view of ``benchmarks.project`` for ``seconds`` seconds.

    ``view`` is its path: "pooled", "shared" or "per-request". The calling process runs on the upstream's
    core.
    """
    if view != "pooled" and find_spec("openai") is None:
        return {"missing": "openai"}
    port = free_port()
    command = ["env", f"BENCHMARK_UPSTREAM={upstream.url}", sys.executable, "-m", "uvicorn"]
    command += ["benchmarks.project.asgi:application", "--port", str(port), "--log-level", "warning"]
    with running(held_to(client_core(), command), directory / "uvicorn.log", port):
        target = Target(f"http://127.0.0.1:{port}/{view}/v1")
        _call_view(target, seconds / 4)
        before = _read_meter(port)
        calls = _call_view(target, seconds)
        after = _read_meter(port)
    answered, cpu = after["answered"] - before["answered"], after["cpu"] - before["cpu"]
    return {**calls, "cpu": cpu / answered, "per_cpu_second": answered / cpu}


def _call_view(target: Target, seconds: float) -> dict[str, float]:
    task = {"client": "floor", "work": "calls", "loop": "uvloop", "core": "upstream"}
    task |= {"target": asdict(target), "parameters": {"concurrency": CONCURRENCY, "seconds": seconds}}
    found = work(task)
    return {name: found[name] for name in ("rate", "p50", "p99")}


def _read_meter(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/meter", timeout=10) as response:
        found: dict[str, float] = json.load(response)
    return found
