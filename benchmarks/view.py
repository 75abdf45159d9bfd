"""Measure a Django view under uvicorn with one worker: the CPU of the server, per request or per token."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.child import work
from benchmarks.clients import Target
from benchmarks.machine import client_core, held_to
from testbed.process import free_port, running

__all__ = ["measure", "measure_stream"]

CONCURRENCY = 32


def measure(
    view: str, upstream: Target, directory: Path, *, checkout: str, seconds: float
) -> dict[str, float | str]:
    """Call a view of ``benchmarks.project`` for ``seconds`` seconds; return its requests per second of CPU.

    ``view`` is its path: "pooled", "shared" or "per-request". The calling process runs on the upstream's
    core. The server uses the ``llm_pool`` of ``checkout``, or ours if that is "".
    """
    if missing := _missing(view):
        return {"missing": missing}
    with _server(upstream, directory, checkout) as (port, _):
        target = Target(f"http://127.0.0.1:{port}/{view}/v1")
        _call_view(target, seconds / 4)
        before = _read_meter(port)
        calls = _call_view(target, seconds)
        after = _read_meter(port)
    answered, cpu = after["answered"] - before["answered"], after["cpu"] - before["cpu"]
    return {**calls, "cpu": cpu / answered, "per_cpu_second": answered / cpu}


def measure_stream(
    view: str, upstream: Target, directory: Path, *, checkout: str, **parameters: Any
) -> dict[str, Any]:
    """Read a streaming view of ``benchmarks.project`` with many browsers; return its CPU per token.

    ``view`` is its path: "stream-pooled", "stream-shared" or "stream-aiohttp". ``parameters`` are those of
    ``work.browsers``; ``checkout`` is that of ``measure``. The browsers run on the upstream's core.
    """
    if missing := _missing(view):
        return {"missing": missing}
    with _server(upstream, directory, checkout) as (port, process):
        target = Target(f"http://127.0.0.1:{port}/{view}/v1")
        return _run("browsers", target, {**parameters, "server": process.pid})


def _missing(view: str) -> str:
    """Return the first module that a view needs and that is not installed; "" if there is none."""
    needed = [] if view.endswith("pooled") else ["openai"]
    if view.endswith("aiohttp"):
        needed += ["httpx_aiohttp"]
    return next((module for module in needed if find_spec(module) is None), "")


@contextlib.contextmanager
def _server(
    upstream: Target, directory: Path, checkout: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run uvicorn with the project while the block runs; yield its port and its process."""
    port = free_port()
    command = ["env", f"BENCHMARK_UPSTREAM={upstream.url}", f"BENCHMARK_CHECKOUT={checkout}"]
    command += [sys.executable, "-m", "uvicorn"]
    command += ["benchmarks.project.asgi:application", "--port", str(port), "--log-level", "warning"]
    with running(held_to(client_core(), command), directory / "uvicorn.log", port) as process:
        yield port, process


def _call_view(target: Target, seconds: float) -> dict[str, float]:
    found = _run("calls", target, {"concurrency": CONCURRENCY, "seconds": seconds})
    return {name: found[name] for name in ("rate", "p50", "p99")}


def _run(name: str, target: Target, parameters: dict[str, Any]) -> dict[str, Any]:
    task = {"client": "floor", "work": name, "loop": "uvloop", "core": "upstream"}
    found = work({**task, "target": asdict(target), "parameters": parameters})
    del found["memory"]  # of the browsers
    return found


def _read_meter(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/meter", timeout=10) as response:
        found: dict[str, float] = json.load(response)
    return found
