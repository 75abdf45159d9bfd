"""A fake name service that replaces ``socket.getaddrinfo``."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from testbed.board import Board, Gate

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FakeDNS"]

Host = str | bytes | None


class FakeDNS(Board):
    """Answers and counts every lookup of the process, within its ``with`` block.

    Names are given as ``FakeDNS({"llm.test": "127.0.0.1", "two.test": ["127.0.0.1", "::1"]})``; a name that
    is not given does not exist (EAI_NONAME). A value that is an exception is raised. Numeric addresses and
    ``localhost`` are passed to the system and not counted. Each lookup blocks its thread at ``gate``.
    """

    def __init__(
        self, names: dict[str, str | Iterable[str] | BaseException] | None = None, *, gate: Gate | None = None
    ) -> None:
        super().__init__()
        self.names = dict(names or {})
        self.gate = gate
        self.queries: list[str] = []
        """Every name that was looked up, in order."""
        self.threads: list[threading.Thread] = []
        """The thread of each lookup."""
        self._real = socket.getaddrinfo

    def __enter__(self) -> Self:
        self._real = socket.getaddrinfo
        socket.getaddrinfo = self._getaddrinfo
        return self

    def __exit__(self, *_: object) -> None:
        socket.getaddrinfo = self._real

    def wait_queries(self, count: int = 1) -> None:
        """Block until ``count`` lookups have begun."""
        self.wait(lambda: len(self.queries) >= count, f"{count} look-ups have begun")

    async def await_queries(self, count: int = 1) -> None:
        """As ``wait_queries``, on the running loop."""
        await self.await_(lambda: len(self.queries) >= count, f"{count} look-ups have begun")

    def _getaddrinfo(
        self,
        host: Host,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or name == "localhost" or _is_numeric(name):
            return self._real(host, port, family, type, proto, flags)
        with self.change():
            self.queries.append(name)
            self.threads.append(threading.current_thread())
        if self.gate is not None:
            self.gate.block()
        answer = self.names.get(name, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(answer, BaseException):
            raise answer
        addresses = [answer] if isinstance(answer, str) else list(answer)
        found = [
            row
            for address in addresses
            if family in (0, _family(address))
            for row in self._real(address, port, 0, type, proto, 0)
        ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def __str__(self) -> str:
        return f"look-ups: {self.queries}"


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
