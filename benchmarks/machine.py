"""The machine: its cores, one for the client and one for the upstream.

``python -m benchmarks.machine CORE COMMAND...`` runs a command on a core (``-`` for any), with many files.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence

__all__ = ["allow_files", "client_core", "held_to", "pin", "upstream_core"]

MOST_FILES = 20_000


def client_core() -> int | None:
    """The core that clients are held to; None where there is only one."""
    cores = os.sched_getaffinity(0)
    return max(cores) if len(cores) > 1 else None


def upstream_core() -> int | None:
    """The core that upstreams are held to."""
    cores = os.sched_getaffinity(0)
    return min(cores) if len(cores) > 1 else None


def pin(core: int | None, pid: int = 0) -> None:
    """Hold a process, by default this one, to a core."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def held_to(core: int | None, command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` on a core, as one that may open many files."""
    return [sys.executable, "-m", "benchmarks.machine", "-" if core is None else str(core), *command]


def allow_files() -> None:
    """Raise this process's limit on open files, as far as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(MOST_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    _, core, *command = sys.argv
    pin(None if core == "-" else int(core))
    allow_files()
    os.execvp(command[0], command)
