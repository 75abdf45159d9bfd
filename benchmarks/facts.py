"""The machine and the library versions of a run, without names of hosts or users."""

from __future__ import annotations

import os
import platform
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.install import site_packages

__all__ = ["machine", "versions"]

LIBRARIES = [
    "Django",
    "httpx",
    "httpcore",
    "h2",
    "httptools",
    "uvloop",
    "uvicorn",
    "httpx2",
    "aiohttp",
    "httpx-aiohttp",
    "openai",
    "anthropic",
    "litellm",
    "niquests",
    "pyreqwest",
    "requests",
]


def machine() -> dict[str, str]:
    """What results depend on: CPU, cores, load, memory, kernel and Python, by name."""
    return {
        "CPU": _processor(),
        "Cores": str(len(os.sched_getaffinity(0))),
        "Load before the run": f"{os.getloadavg()[0]:.1f} (what others were doing; 0 is best)",
        "Memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """The version of each of ``LIBRARIES`` that is installed."""
    found = {}
    for name in LIBRARIES:
        for distribution in distributions(name=name, path=site_packages()):
            found.setdefault(name, distribution.version)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
