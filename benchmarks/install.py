"""Install the peers into this interpreter's environment: ``python -m benchmarks.install``.

A peer that conflicts with the others gets its own virtual environment. A peer that cannot be installed
is skipped; the reason is kept in a file, for the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ROOT", "interpreter", "site_packages", "why_missing"]

ROOT = Path(__file__).parents[1]
SHARED = (
    "aiohttp",
    "anthropic",
    "httpx-aiohttp",
    "httpx2",
    "niquests",
    "openai",
    "pyreqwest",
    "requests",
)
SEPARATE = {"litellm": ("litellm", "uvloop", "httpx")}  # litellm requires openai below 3
_SKIPPED = Path(sys.prefix) / "skipped-peers.json"


def interpreter(client: str) -> str:
    """The path of the Python interpreter for which this client is installed."""
    separate = _separate_python(client)
    return str(separate) if separate.exists() else sys.executable


def site_packages() -> list[str]:
    """Every folder of libraries: this interpreter's and those of the separate environments."""
    return [*sys.path, *map(str, Path(sys.prefix).glob("apart/*/lib/python*/site-packages"))]


def why_missing(module: str) -> str:
    """The reason why a module is not installed, as a sentence for the report."""
    reasons: dict[str, str] = json.loads(_SKIPPED.read_text()) if _SKIPPED.exists() else {}
    name = module.replace("_", "-")
    return reasons.get(name, f"{name} is not installed")


def main() -> None:
    """Install all peers, and print the reason for each one that cannot be installed."""
    reasons = {}
    if _pip(sys.executable, SHARED):
        for peer in SHARED:
            if reason := _pip(sys.executable, [peer]):
                reasons[peer] = reason
    for peer, requirements in SEPARATE.items():
        python = _separate_python(peer)
        if not python.exists():
            venv.create(python.parents[1], with_pip=True)
        if reason := _pip(str(python), requirements, f"benchmarks/{peer}-constraints.txt"):
            reasons[peer] = reason
    _SKIPPED.write_text(json.dumps(reasons, indent=2))
    for peer, reason in reasons.items():
        print(f"{peer} is skipped: {reason}")


def _separate_python(peer: str) -> Path:
    return Path(sys.prefix) / "apart" / peer / "bin" / "python"


def _pip(python: str, requirements: tuple[str, ...] | list[str], constraints: str = "constraints.txt") -> str:
    """Install ``requirements``; return "" or pip's last error."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--constraint", str(ROOT / constraints), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return (errors or done.stderr.splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")


if __name__ == "__main__":
    main()
