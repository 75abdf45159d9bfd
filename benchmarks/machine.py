"""The cores of the machine: one for the client, another for the upstream.

``python -m benchmarks.machine CORE COMMAND...`` runs a command on a core (``-``: on any), with a raised limit
on open files.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence

__all__ = [
    "allow_files",
    "client_core",
    "cpu_so_far",
    "held_to",
    "load_by_others",
    "pin",
    "upstream_core",
]

MAX_FILES = 20_000


def client_core() -> int | None:
    """The core that clients run on; None if the machine has only one."""
    cores = os.sched_getaffinity(0)
    return max(cores) if len(cores) > 1 else None


def upstream_core() -> int | None:
    """The core that upstreams run on; None if the machine has only one."""
    cores = os.sched_getaffinity(0)
    return min(cores) if len(cores) > 1 else None


def pin(core: int | None, pid: int = 0) -> None:
    """Run a process, by default this one, on ``core`` only. With None it changes nothing."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def held_to(core: int | None, command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` on a core, with a raised limit on open files."""
    return [sys.executable, "-m", "benchmarks.machine", "-" if core is None else str(core), *command]


def allow_files() -> None:
    """Raise this process's limit on open files to ``MAX_FILES``, or to the hard limit if that is lower."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_so_far() -> float:
    """The CPU seconds of this process and of all its children that have ended."""
    return sum(os.times()[:4])


def load_by_others(our_cores: float) -> float:
    """The load of the last minute, without ``our_cores``, the cores that our processes have kept busy."""
    return max(0.0, os.getloadavg()[0] - our_cores)


if __name__ == "__main__":
    _, core, *command = sys.argv
    pin(None if core == "-" else int(core))
    allow_files()
    os.execvp(command[0], command)
