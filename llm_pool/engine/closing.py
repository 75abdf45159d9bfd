"""Aborts a connection. The server notices this even if it reads nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

if sys.platform != "win32":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["abort", "has_unacknowledged_data"]

RESET = struct.pack("ii", 1, 0)  # ``struct linger``: on, for 0 seconds. The close then sends an RST


def abort(transport: asyncio.Transport) -> None:
    """Close an open connection at once. Send an RST if the server has not acknowledged all data.

    TCP sends a FIN only after all data. A server that reads nothing would never receive the FIN, and would
    still count a connection that the pool no longer counts.
    """
    sock = _socket_of(transport)
    if sock is not None and has_unacknowledged_data(transport):
        with contextlib.suppress(OSError):  # the socket is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


def has_unacknowledged_data(transport: asyncio.Transport) -> bool:
    """Return whether the transport has data that the server has not acknowledged.

    Checks the buffer of asyncio and, except on Windows, the buffer of the kernel. Returns False if the socket
    is closed.
    """
    sock = _socket_of(transport)
    if sock is None:
        return False
    if transport.get_write_buffer_size():
        return True
    if sys.platform == "win32":
        return False
    try:
        (size,) = struct.unpack("i", ioctl(sock.fileno(), TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # the socket is closed already
        return False
    return bool(size)


def _socket_of(transport: asyncio.Transport) -> socket.socket | None:
    try:
        sock: socket.socket | None = transport.get_extra_info("socket")
    except AttributeError:  # asyncio's TLS transport, after its close
        return None
    return sock
