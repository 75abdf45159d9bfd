"""A DNS server on a UDP port, for resolvers that do not use ``socket.getaddrinfo``."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from testbed.board import WAIT_SECONDS, Board, Gate

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NO_SUCH_NAME", "REFUSED", "SERVER_FAILED", "NameServer"]

SERVER_FAILED, NO_SUCH_NAME, REFUSED = 2, 3, 5  # RFC 1035, section 4.1.1
KINDS = {1: "A", 28: "AAAA"}
HEAD = struct.Struct("!6H")  # id, flags, and the counts of questions, answers, authorities, additions
RESPONSE, RECURSION = 0x8000, 0x0180


class NameServer(Board):
    """Answers on ``address`` ("127.0.0.1:port") and counts the questions, within its ``with`` block.

    ``names`` maps names to addresses, as in FakeDNS. If the value is a number, that is sent as the response
    code (RFC 1035, section 4.1.1). If it is None, the question is not answered. Questions for IPv4 wait at
    ``gate``.
    """

    def __init__(self, gate: Gate | None = None) -> None:
        super().__init__()
        self.names: dict[str, str | Iterable[str] | int | None] = {}
        self.gate = gate
        self.timeout = WAIT_SECONDS
        """Seconds after which a resolver repeats its question; tests configure aiodns with it."""
        self.questions: list[tuple[str, str]] = []
        """The name and the kind ("A" or "AAAA") of each question, in order."""
        self.threads: list[threading.Thread] = []
        """The thread on which each resolver was made; tests that make resolvers append to it."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve, name="name server")]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        if self.gate is not None:
            self.gate.open()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    @property
    def queries(self) -> list[str]:
        """Every name that was looked up, in order; the two questions of a lookup count once."""
        return [name for name, kind in self.questions if kind == "A"]

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(query, client)))
            self._threads[-1].start()

    def _answer(self, query: bytes, client: tuple[str, int]) -> None:
        name, kind, question = _question(query)
        with self.change():
            self.questions.append((name, kind))
        if self.gate is not None and kind == "A":
            self.gate.block()
        found = self.names.get(name, NO_SUCH_NAME)
        if found is None:
            return
        code = found if isinstance(found, int) else 0
        records = [] if isinstance(found, int) else [_record(address) for address in _addresses(kind, found)]
        identity = int.from_bytes(query[:2])
        head = HEAD.pack(identity, RESPONSE | RECURSION | code, 1, len(records), 0, 0)
        self._socket.sendto(head + question + b"".join(records), client)

    def __str__(self) -> str:
        return f"questions: {self.questions}"


def _question(query: bytes) -> tuple[str, str, bytes]:
    """Parse the question of a query: its name, its kind, and its bytes."""
    labels, position = [], HEAD.size
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode())
        position += 1 + length
    kind = KINDS[int.from_bytes(query[position + 1 : position + 3])]
    return ".".join(labels), kind, query[HEAD.size : position + 5]


def _addresses(kind: str, found: str | Iterable[str]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    addresses = map(ipaddress.ip_address, [found] if isinstance(found, str) else found)
    return [address for address in addresses if address.version == (4 if kind == "A" else 6)]


def _record(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """Return a record for the name in the question.

    Its TTL is an hour: a resolver that repeats a question within that time has not cached the answer.
    """
    kind = 1 if address.version == 4 else 28
    # 0xC00C points to the name at byte 12, the question's (RFC 1035, section 4.1.4).
    return struct.pack("!HHHIH", 0xC00C, kind, 1, 3600, len(address.packed)) + address.packed
