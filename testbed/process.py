"""A server as a process of its own, for as long as a block lasts; for tests and benchmarks."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["free_port", "running"]

START_SECONDS = 20.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 1.0

_given: set[int] = set()
"""Ports that ``free_port`` has given out."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, and was given to nobody else here."""
    with contextlib.ExitStack() as tried:
        while True:
            sock = tried.enter_context(socket.socket())
            sock.bind((host, 0))
            port = int(sock.getsockname()[1])
            if port not in _given:
                _given.add(port)
                return port


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, port: int, host: str = "127.0.0.1", *, also: Iterable[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it listens on all of its ports: it opens them one after another.

    Raises RuntimeError with what it wrote to ``log`` where it does not.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            for each in (port, *also):
                _wait_listening(process, (host, each), log)
            yield process
        finally:
            _stop(process)


def _wait_listening(process: subprocess.Popen[bytes], address: tuple[str, int], log: Path) -> None:
    """Another program tells nobody when it is ready: its port is tried until it is."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as sock:
            sock.settimeout(ANSWER_SECONDS)
            if sock.connect_ex(address) == 0:
                return
        said = log.read_text(errors="replace").strip()
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended at once with status {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not listen after {START_SECONDS:g} s: {said}")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
