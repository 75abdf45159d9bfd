"""The machine: its cores, one for the client and one for the upstream.

``python -m benchmarks.machine COMMAND...`` runs a command that may open many files.
"""

from __future__ import annotations

import os
import resource
import sys

__all__ = ["allow_files", "client_core", "pin", "upstream_core"]

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


def allow_files() -> None:
    """Raise this process's limit on open files, as far as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(MOST_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    allow_files()
    os.execvp(sys.argv[1], sys.argv[1:])
