"""How a connection ends so that it ends at the server too, and no longer counts there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

if sys.platform != "win32":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["abort", "holds_back"]

RESET = struct.pack("ii", 1, 0)


def abort(transport: asyncio.Transport) -> None:
    """End a connection that has not been lost yet at once: by RST where the server has not taken all.

    A FIN would stand behind what the server has not taken of a request: for as long as it takes nothing,
    the connection would be open there, though here nobody counts it any more.
    """
    sock = _socket_of(transport)
    if sock is not None and holds_back(transport):
        with contextlib.suppress(OSError):  # it has ended already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


def holds_back(transport: asyncio.Transport) -> bool:
    """Whether the server has not taken all that was sent: some is left with us, or with the kernel."""
    sock = _socket_of(transport)
    if sock is None:
        return False
    if transport.get_write_buffer_size():
        return True
    if sys.platform == "win32":
        return False  # it does not tell what the kernel holds
    try:
        (size,) = struct.unpack("i", ioctl(sock.fileno(), TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # it has ended already
        return False
    return bool(size)


def _socket_of(transport: asyncio.Transport) -> socket.socket | None:
    try:
        sock: socket.socket | None = transport.get_extra_info("socket")
    except AttributeError:  # a TLS transport of asyncio's that has been closed
        return None
    return sock
