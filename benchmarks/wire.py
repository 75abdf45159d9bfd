"""The wire of a link: ``python -m benchmarks.wire END END DELAY``. Carries packets both ways, each late.

The ends are file descriptors of TUN devices, which the process inherits; the delay is in seconds, one way.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque

__all__ = ["carry"]

LARGEST = 65536  # bytes of a packet


def carry(one: int, other: int, delay: float) -> None:
    """Carry packets until the process is killed."""
    opposite = {one: other, other: one}
    flight: deque[tuple[float, int, bytes]] = deque()  # the delay is the same for all: none overtakes
    while True:
        wait = max(0.0, flight[0][0] - time.monotonic()) if flight else None
        # select, as poll and epoll wait for whole milliseconds, which is too coarse for a round trip
        ready, _, _ = select.select([one, other], [], [], wait)
        for end in ready:
            packet = os.read(end, LARGEST)
            flight.append((time.monotonic() + delay, opposite[end], packet))
        while flight and flight[0][0] <= time.monotonic():
            _, end, packet = flight.popleft()
            with contextlib.suppress(OSError):  # a device that is full or down drops it
                os.write(end, packet)


if __name__ == "__main__":
    # before all others, as a wire waits for no processor
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
