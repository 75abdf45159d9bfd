"""Installs the peers beside this interpreter: ``python -m benchmarks.install``. What cannot be is skipped.

Peers that go together with no other have a virtual environment of their own. The reasons for what is skipped
are kept, for the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ROOT", "interpreter", "site_packages", "why_missing"]

ROOT = Path(__file__).parents[1]
TOGETHER = (
    "aiohttp",
    "anthropic",
    "httpx-aiohttp",
    "httpx2",
    "niquests",
    "openai",
    "pyreqwest",
    "requests",
)
APART = {"litellm": ("litellm", "uvloop", "httpx")}  # it holds openai below 3
_SKIPPED = Path(sys.prefix) / "skipped-peers.json"


def interpreter(client: str) -> str:
    """The Python that has what this client needs."""
    own = _apart(client)
    return str(own) if own.exists() else sys.executable


def site_packages() -> list[str]:
    """Where the libraries are, those included that have an environment of their own."""
    return [*sys.path, *map(str, Path(sys.prefix).glob("apart/*/lib/python*/site-packages"))]


def why_missing(module: str) -> str:
    """Why a module is not there."""
    reasons: dict[str, str] = json.loads(_SKIPPED.read_text()) if _SKIPPED.exists() else {}
    name = module.replace("_", "-")
    return reasons.get(name, f"{name} is not installed")


def main() -> None:
    """Install all that can be."""
    reasons = {}
    if _pip(sys.executable, TOGETHER):
        for peer in TOGETHER:
            if reason := _pip(sys.executable, [peer]):
                reasons[peer] = reason
    for peer, requirements in APART.items():
        python = _apart(peer)
        if not python.exists():
            venv.create(python.parents[1], with_pip=True)
        if reason := _pip(str(python), requirements, f"benchmarks/{peer}-constraints.txt"):
            reasons[peer] = reason
    _SKIPPED.write_text(json.dumps(reasons, indent=2))
    for peer, reason in reasons.items():
        print(f"{peer} is skipped: {reason}")


def _apart(peer: str) -> Path:
    return Path(sys.prefix) / "apart" / peer / "bin" / "python"


def _pip(python: str, requirements: tuple[str, ...] | list[str], constraints: str = "constraints.txt") -> str:
    """Empty where all could be installed; otherwise pip's last word."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--constraint", str(ROOT / constraints), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return (errors or done.stderr.splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")


if __name__ == "__main__":
    main()
