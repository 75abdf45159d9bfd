"""A client on a raw socket, which can stop reading and disconnect at any moment."""

from __future__ import annotations

import socket
import struct
from typing import Self

__all__ = ["RawClient"]

TIMEOUT = 10.0


class RawClient:
    """Sends one request. ``received`` is the response as received, with its framing."""

    def __init__(self, port: int, path: str, *, window: int | None = None, headers: str = "") -> None:
        self.received = b""
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT)
        if window is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())

    def read_through(self, mark: bytes) -> bytes:
        """Read until ``mark`` has arrived; return all bytes up to its end."""
        while mark not in self.received:
            data = self._socket.recv(65536)
            assert data, f"the answer ended before {mark!r}: {self.received!r}"
            self.received += data
        return self.received[: self.received.index(mark) + len(mark)]

    def close(self) -> None:
        """Send a FIN, as a browser does when its tab is closed."""
        self._socket.close()

    def reset(self) -> None:
        """Send a RST, as when a browser is killed with unread data."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
