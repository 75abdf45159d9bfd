"""Run a server in a separate process for as long as a ``with`` block lasts."""

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
CONNECT_SECONDS = 1.0

_used_ports: set[int] = set()
"""Ports that ``free_port`` has returned."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, and that no other call in this process has returned."""
    with contextlib.ExitStack() as tried:
        while True:
            sock = tried.enter_context(socket.socket())
            sock.bind((host, 0))
            port = int(sock.getsockname()[1])
            if port not in _used_ports:
                _used_ports.add(port)
                return port


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, port: int, host: str = "127.0.0.1", *, also: Iterable[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and wait until it listens on ``port`` and the ports in ``also``; stop it at the end.

    Its output goes to ``log``. Raises RuntimeError with that output if the process ends first, or does not
    listen within ``START_SECONDS``.
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
    """Connect to ``address`` until that succeeds: a program does not report that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as sock:
            sock.settimeout(CONNECT_SECONDS)
            if sock.connect_ex(address) == 0:
                return
        output = log.read_text(errors="replace").strip()
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended at once with status {process.returncode}: {output}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not listen after {START_SECONDS:g} s: {output}")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
