"""A link to a distant host: a network namespace behind two TUN devices, and a process that delays packets.

Every packet is delayed, so that the handshakes of TCP and TLS take round trips too; a proxy that delays
bytes would not do that. It needs root and the program ``ip``, but no kernel module such as netem.
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
IFF_NO_PI = 0x1000  # packets without the device's own header


class LinkImpossible(Exception):
    """This machine cannot make a link; the message has the reason."""


@dataclass(frozen=True)
class Far:
    """The distant end of a link.

    ``host``    its IPv4 address
    ``inside``  arguments that, before a command, run it in the distant namespace
    """

    host: str
    inside: tuple[str, ...]


@contextlib.contextmanager
def link(round_trip: float) -> Iterator[Far]:
    """Make a link with a round trip of ``round_trip`` seconds, while the block runs.

    Raises LinkImpossible.
    """
    ip = _ip_program()
    number = os.getpid()
    namespace, near, far = f"bench{number}", f"bn{number}", f"bf{number}"
    # RFC 2544 reserves 198.18.0.0/15 for benchmarks; each process uses four of its addresses
    prefix = f"198.{18 + (number >> 14 & 1)}.{number >> 6 & 255}"
    near_address, far_address = (f"{prefix}.{(number & 63) * 4 + host}" for host in (1, 2))
    with contextlib.ExitStack() as undo:
        _run(ip, "netns", "add", namespace)
        undo.callback(_run, ip, "netns", "delete", namespace)
        ends = [_tun(name) for name in (near, far)]
        for end in ends:
            undo.callback(os.close, end)
        _run(ip, "link", "set", far, "netns", namespace)
        _run(ip, "address", "add", f"{near_address}/30", "dev", near)
        _run(ip, "link", "set", near, "up")
        _run(ip, "-n", namespace, "address", "add", f"{far_address}/30", "dev", far)
        _run(ip, "-n", namespace, "link", "set", far, "up")
        undo.enter_context(_wire(ends, round_trip / 2))
        yield Far(far_address, (ip, "netns", "exec", namespace))


def _ip_program() -> str:
    """The path of ``ip``. Raises LinkImpossible if the machine lacks it, root or TUN devices."""
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
