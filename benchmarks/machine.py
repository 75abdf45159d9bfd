"""The machine: its cores, one for the client and one for the upstream, and what is told of it in reports.

``python -m benchmarks.machine COMMAND...`` runs a command that may open many files.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["allow_files", "client_core", "facts", "pin", "upstream_core", "versions"]

MOST_FILES = 20_000
LIBRARIES = [
    *("Django", "httpx", "httpcore", "h2", "httptools", "uvloop", "uvicorn"),
    *(
        "httpx2",
        "aiohttp",
        "httpx-aiohttp",
        "openai",
        "anthropic",
        "litellm",
        "niquests",
        "pyreqwest",
        "requests",
    ),
]


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


def facts() -> dict[str, str]:
    """What a reader needs to compare; nothing that names the machine or its user."""
    return {
        "CPU": _processor(),
        "Cores": str(len(os.sched_getaffinity(0))),
        "Memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """The libraries that are installed here."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    allow_files()
    os.execvp(sys.argv[1], sys.argv[1:])
