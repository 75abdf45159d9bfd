"""A DNS server of the tests' own, on a UDP port, for resolvers that ask one by themselves."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from testbed.board import PATIENCE, Board, Gate

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NO_SUCH_NAME", "REFUSED", "SERVER_FAILED", "NameServer"]

SERVER_FAILED, NO_SUCH_NAME, REFUSED = 2, 3, 5  # RFC 1035, section 4.1.1
KINDS = {1: "A", 28: "AAAA"}
HEAD = struct.Struct("!6H")  # identity, flags, and how many questions, answers, authorities, additions
RESPONSE, RECURSION = 0x8000, 0x0180


class NameServer(Board):
    """While entered it answers on ``address`` ("127.0.0.1:port"), and counts.

    ``names`` are as those of FakeDNS; a number in the place of addresses is the response code, and None is
    never answered. ``gate`` stops each look-up, by its question for IPv4, until it opens.
    """

    def __init__(self, gate: Gate | None = None) -> None:
        super().__init__()
        self.names: dict[str, str | Iterable[str] | int | None] = {}
        self.gate = gate
        self.patience = PATIENCE
        """Seconds after which aiodns is to ask again."""
        self.questions: list[tuple[str, str]] = []
        """Each name with the kind of its question, "A" or "AAAA", in order."""
        self.threads: list[threading.Thread] = []
        """The thread on which each resolver was made that asks here."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._at_work = [threading.Thread(target=self._serve, name="name server")]
        self._at_work[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        if self.gate is not None:
            self.gate.open()
        for thread in self._at_work:
            thread.join()
        self._socket.close()

    @property
    def queries(self) -> list[str]:
        """Every name that was looked up, in order: one that is asked for twice, for its two kinds, once."""
        return [name for name, kind in self.questions if kind == "A"]

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._at_work.append(threading.Thread(target=self._answer, args=(query, client)))
            self._at_work[-1].start()

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
        records = [] if isinstance(found, int) else [_record(address) for address in _of(kind, found)]
        identity = int.from_bytes(query[:2])
        head = HEAD.pack(identity, RESPONSE | RECURSION | code, 1, len(records), 0, 0)
        self._socket.sendto(head + question + b"".join(records), client)

    def __str__(self) -> str:
        return f"questions: {self.questions}"


def _question(query: bytes) -> tuple[str, str, bytes]:
    """The name that is asked for, the kind of its address, and the question as it came."""
    labels, place = [], HEAD.size
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode())
        place += 1 + length
    kind = KINDS[int.from_bytes(query[place + 1 : place + 3])]
    return ".".join(labels), kind, query[HEAD.size : place + 5]


def _of(kind: str, found: str | Iterable[str]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    addresses = map(ipaddress.ip_address, [found] if isinstance(found, str) else found)
    return [address for address in addresses if address.version == (4 if kind == "A" else 6)]


def _record(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """An answer to the question, good for an hour: no cache but ours may be noticed."""
    kind = 1 if address.version == 4 else 28
    # 0xC00C stands for the name at byte 12: the question's.
    return struct.pack("!HHHIH", 0xC00C, kind, 1, 3600, len(address.packed)) + address.packed
