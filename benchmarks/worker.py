"""Measure one client with one kind of work, in a separate process: ``python -m benchmarks.worker TASK``.

The task is JSON: ``client``, ``work`` and its ``parameters``, ``target``, ``loop``, and ``core`` ("upstream"
to run on the upstream's core). The output is JSON: the measures, and ``memory``, the peak memory of the
process in bytes; or ``missing``, the module that is not installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.clients import AsyncClient, Target, load
from benchmarks.machine import allow_files, client_core, pin, upstream_core
from benchmarks.work import browsers, calls, counts, distance, streams

__all__ = ["main"]

WORKS = {
    "calls": calls.calls,
    "turns": calls.turns,
    "functions": counts.functions,
    "dials": counts.dials,
    "events": streams.events,
    "held": streams.held,
    "in_turn": distance.in_turn,
    "burst": distance.burst,
    "browsers": browsers.browsers,
}


def main(task: dict[str, Any]) -> None:
    """Carry out a task, print its result, and end the process."""
    target = Target(**task["target"])
    try:
        make = load(task["client"])
        if issubclass(make, AsyncClient):
            _loop(task["loop"]).run(_measure(make, target, task))
        _print_and_exit(calls.threads(make(target), **task["parameters"]))
    except ModuleNotFoundError as error:
        _print_and_exit({"missing": error.name})


async def _measure(make: type[AsyncClient], target: Target, task: dict[str, Any]) -> NoReturn:
    try:
        found = await WORKS[task["work"]](make(target), **task["parameters"])
    except ExceptionGroup as group:  # all callers fail for the same reason: one error is enough
        raise group.exceptions[0] from None
    _print_and_exit(found)


def _print_and_exit(found: dict[str, Any]) -> NoReturn:
    """Print the result and end the process, without closing connections."""
    print(json.dumps({**found, "memory": _peak_memory()}), flush=True)
    os._exit(0)


def _loop(name: str) -> asyncio.Runner:
    if name == "asyncio":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _peak_memory() -> float:
    """The peak memory in bytes. ``getrusage`` would include the parent's memory at the fork."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    pin(upstream_core() if given.get("core") == "upstream" else client_core())
    allow_files()
    main(given)
