"""One client at one work in a process of its own: ``python -m benchmarks.worker TASK``, both in JSON.

The task: ``client``, ``work`` and its ``parameters``, ``target``, ``loop``; ``core`` if not the client's own.
Prints what was measured, and ``memory``, the most bytes that the process held. A library that is not there
is no error, but ``missing``.
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
from benchmarks.work import calls, distance, streams

__all__ = ["main"]

WORKS = {
    "calls": calls.calls,
    "events": streams.events,
    "held": streams.held,
    "in_turn": distance.in_turn,
    "burst": distance.burst,
}


def main(task: dict[str, Any]) -> None:
    """Carry out a task."""
    target = Target(**task["target"])
    try:
        make = load(task["client"])
        if issubclass(make, AsyncClient):
            _loop(task["loop"]).run(_measure(make, target, task))
        _tell(calls.threads(make(target), **task["parameters"]))
    except ModuleNotFoundError as error:
        _tell({"missing": error.name})


async def _measure(make: type[AsyncClient], target: Target, task: dict[str, Any]) -> NoReturn:
    try:
        found = await WORKS[task["work"]](make(target), **task["parameters"])
    except ExceptionGroup as group:  # the callers fail alike: one says it shorter than all
        raise group.exceptions[0] from None
    _tell(found)


def _tell(found: dict[str, Any]) -> NoReturn:
    """Print it and end at once: nobody waits until all connections are closed in order."""
    print(json.dumps({**found, "memory": _most_memory()}), flush=True)
    os._exit(0)


def _loop(name: str) -> asyncio.Runner:
    if name == "asyncio":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _most_memory() -> float:
    """In bytes. ``getrusage`` would count what the parent held at the fork."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    pin(upstream_core() if given.get("core") == "upstream" else client_core())
    allow_files()
    main(given)
