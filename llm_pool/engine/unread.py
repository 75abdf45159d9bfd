"""Finds out whether a socket has input that its event loop has not read yet.

A loop reads a socket only between its callbacks. If one of these has blocked the loop, or if the process was
suspended, the server can meanwhile have closed the connection or sent a response that no call has requested.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from functools import partial

from .loops.greenlets import original

__all__ = ["read_unread", "unread_check"]

READ_STEPS = 10  # steps of a loop; a read takes two, and the end of a TLS connection some more


def unread_check(transport: asyncio.Transport) -> Callable[[], object]:
    """Return a function that looks at the transport's socket, without waiting.

    The function returns a true value if the socket has unread bytes, was closed by the server, or is closed.
    It must be called on one thread only.
    """
    sock = transport.get_extra_info("socket")
    if sys.platform == "win32":
        return lambda: sock.fileno() < 0 or select.select([sock], [], [], 0)[0]
    poller = original("select", "poll")()
    poller.register(sock, select.POLLIN)
    return partial(poller.poll, 0)


async def read_unread(has_unread: Callable[[], object]) -> None:
    """Let the running loop read the input of a socket, until ``has_unread`` (an ``unread_check``) finds none.

    Waits at most ``READ_STEPS`` steps of the loop: the rest of a longer input, or a close, can remain.
    """
    for _ in range(READ_STEPS):
        if not has_unread():
            return
        await asyncio.sleep(0)
