"""CPU per call of each client against one nginx, interleaved: ``python -m benchmarks.cpu_per_call``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.clients import CLIENTS
from tests.servers.programs import Nginx, nginx
from tests.servers.tls import Certificates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument(
        "--http2", action="store_true", help="over TLS and HTTP/2; aiohttp has none and is left out"
    )
    options = parser.parse_args()
    if options.http2:
        options.clients = [name for name in options.clients if name != "aiohttp"]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.clients}
    with tempfile.TemporaryDirectory() as directory, _upstream(Path(directory), options.http2) as upstream:
        url = upstream.https_url if options.http2 else upstream.url
        os.sched_setaffinity(upstream.pid, {min(os.sched_getaffinity(0))})
        for _ in range(options.rounds):
            for name in options.clients:
                results[name].append(_round(name, f"{url}/v1", options))
    _report(results)


def _upstream(directory: Path, http2: bool) -> AbstractContextManager[Nginx]:
    certificate = Certificates(directory).good_files if http2 else None
    return nginx(directory / "nginx", size=600, certificate=certificate, http2=http2)


def _round(name: str, url: str, options: argparse.Namespace) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.worker",
        name,
        url,
        str(options.concurrency),
        str(options.calls),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _report(results: dict[str, list[dict[str, float]]]) -> None:
    base = "httpx" if "httpx" in results else next(iter(results))
    print(f"{'client':<18}{'CPU/call':>12}{'calls/s':>10}{'p50':>10}{'p99':>10}{f'CPU to {base}':>28}")
    for name, rounds in results.items():
        ratios = [one["cpu"] / other["cpu"] for one, other in zip(rounds, results[base], strict=True)]
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(
            f"{name:<18}{middle['cpu'] * 1e6:>9.1f} us{middle['rate']:>10.0f}"
            f"{middle['p50'] * 1e3:>7.2f} ms{middle['p99'] * 1e3:>7.2f} ms{spread:>28}"
        )


if __name__ == "__main__":
    main()
