"""A link to a far host: a network namespace behind two TUN devices, and a wire that takes its time.

Every packet is delayed, so the handshakes of TCP and TLS pay for the distance as they do in life, which a
delaying proxy could not make them. Needs root and the program ``ip``; no kernel module for delays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import pin, upstream_core
from testbed.programs import ProgramMissing, program

__all__ = ["Far", "LinkImpossible", "link"]

TUN = Path("/dev/net/tun")
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000  # bare packets, with no header of the device's own


class LinkImpossible(Exception):
    """No link can be made here; the message says why."""


@dataclass(frozen=True)
class Far:
    """The far end: its address, and what is put before the command of a server there."""

    host: str
    inside: tuple[str, ...]


@contextlib.contextmanager
def link(round_trip: float) -> Iterator[Far]:
    """A far host, so many seconds away and back. Raises LinkImpossible."""
    ip = _means()
    number = os.getpid()
    namespace, near, far = f"bench{number}", f"bn{number}", f"bf{number}"
    # RFC 2544 keeps 198.18.0.0/15 for benchmarks; four addresses of it to each process
    prefix = f"198.{18 + (number >> 14 & 1)}.{number >> 6 & 255}"
    here, there = (number & 63) * 4 + 1, (number & 63) * 4 + 2
    with contextlib.ExitStack() as undo:
        _run(ip, "netns", "add", namespace)
        undo.callback(_run, ip, "netns", "delete", namespace)
        ends = [_tun(name) for name in (near, far)]
        for end in ends:
            undo.callback(os.close, end)
        _run(ip, "link", "set", far, "netns", namespace)
        _run(ip, "address", "add", f"{prefix}.{here}/30", "dev", near)
        _run(ip, "link", "set", near, "up")
        _run(ip, "-n", namespace, "address", "add", f"{prefix}.{there}/30", "dev", far)
        _run(ip, "-n", namespace, "link", "set", far, "up")
        undo.enter_context(_wire(ends, round_trip / 2))
        yield Far(f"{prefix}.{there}", (ip, "netns", "exec", namespace))


def _means() -> str:
    """The program ``ip``."""
    if os.geteuid() != 0:
        raise LinkImpossible("a link with a real round trip needs root")
    if not TUN.exists():
        raise LinkImpossible(f"this kernel offers no {TUN}")
    try:
        return program("ip")
    except ProgramMissing as error:
        raise LinkImpossible(f"{error} (Debian: iproute2)") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LinkImpossible(f"{' '.join(command)}: {done.stderr.strip()}")


def _tun(name: str) -> int:
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        os.close(device)
        raise LinkImpossible(f"the TUN device {name} cannot be made: {error.strerror}") from error
    return device


@contextlib.contextmanager
def _wire(ends: list[int], delay: float) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.wire", *map(str, ends), str(delay)]
    process = subprocess.Popen(command, pass_fds=ends)
    pin(upstream_core(), process.pid)
    try:
        yield
    finally:
        process.kill()
        process.wait()
