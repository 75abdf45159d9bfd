"""A server as a process of its own, on the upstream's core, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import pin

__all__ = ["free_port", "running"]

START_SECONDS = 20.0
STOP_SECONDS = 10.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, address: tuple[str, int], core: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it listens. Raises RuntimeError with what it wrote where it does not."""
    with log.open("wb") as output:
        limited = [sys.executable, "-m", "benchmarks.machine", *command]
        process = subprocess.Popen(limited, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            pin(core, process.pid)
            _wait_listening(process, address, log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_listening(process: subprocess.Popen[bytes], address: tuple[str, int], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as sock:
            sock.settimeout(1.0)
            if sock.connect_ex(address) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()
            raise RuntimeError(f"{process.args!r} does not listen on {address}: {said}")
        time.sleep(0.02)
