"""Carry packets between the two ends of a link, with a delay: ``python -m benchmarks.wire END END DELAY``.

The ends are inherited file descriptors of TUN devices; the delay is in seconds, one way.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque

__all__ = ["carry"]

MAX_PACKET = 65536  # bytes


def carry(one: int, other: int, delay: float) -> None:
    """Carry packets until the process is killed."""
    opposite = {one: other, other: one}
    delayed: deque[tuple[float, int, bytes]] = deque()  # in the order of arrival: the delay is constant
    while True:
        wait = max(0.0, delayed[0][0] - time.monotonic()) if delayed else None
        # select, since poll and epoll wait for whole milliseconds: too coarse for a round trip
        ready, _, _ = select.select([one, other], [], [], wait)
        for end in ready:
            packet = os.read(end, MAX_PACKET)
            delayed.append((time.monotonic() + delay, opposite[end], packet))
        while delayed and delayed[0][0] <= time.monotonic():
            _, end, packet = delayed.popleft()
            with contextlib.suppress(OSError):  # the packet is lost if the device is full or down
                os.write(end, packet)


if __name__ == "__main__":
    # real-time priority: waiting for a processor would add to the delay
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
