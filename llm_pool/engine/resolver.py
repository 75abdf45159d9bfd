"""The DNS cache: one query for many askers, answers and failures kept for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .config import DNS
from .errors import DNSFailed
from .threads import in_thread

__all__ = ["AddrInfo", "Resolver"]

AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]


class Resolver:
    """Names to addresses, through the system's resolver, on a thread of its own and never on an event loop.

    Shared by all homes of a pool. Each lookup starts at the next address, so that connections spread.
    """

    def __init__(self, config: DNS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], tuple[float, list[AddrInfo] | DNSFailed]] = {}
        self._queries: dict[tuple[str, int], Future[list[AddrInfo]]] = {}
        self._turns: dict[tuple[str, int], int] = {}
        self.queries = 0

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        """The addresses of ``host``, as ``getaddrinfo`` gives them. Raises DNSFailed."""
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        key = (host, port)
        with self._lock:
            answer = self._fresh(key)
            query = None if answer is not None else self._query(key)
        if query is not None:
            # The shield: whoever is cancelled here leaves the others their answer.
            try:
                answer = await asyncio.shield(asyncio.wrap_future(query))
            except DNSFailed as error:
                answer = error
        if isinstance(answer, DNSFailed):
            raise DNSFailed(str(answer)) from answer.__cause__
        assert answer is not None
        return self._rotated(key, answer)

    def forget(self, host: str, port: int) -> None:
        """Drop the answer for ``host``: a connection to it failed."""
        with self._lock:
            cached = self._answers.get((host, port))
            if cached is not None and not isinstance(cached[1], DNSFailed):
                del self._answers[host, port]

    def _fresh(self, key: tuple[str, int]) -> list[AddrInfo] | DNSFailed | None:
        cached = self._answers.get(key)
        if cached is None or cached[0] <= self._clock():
            return None
        return cached[1]

    def _query(self, key: tuple[str, int]) -> Future[list[AddrInfo]]:
        query = self._queries.get(key)
        if query is None:
            self.queries += 1
            query = self._queries[key] = in_thread(self._ask, key)
        return query

    def _ask(self, key: tuple[str, int]) -> list[AddrInfo]:
        host, port = key
        answer: list[AddrInfo] | DNSFailed
        try:
            answer = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))
        except (OSError, UnicodeError) as error:
            answer = DNSFailed(f"the name {host!r} has no address: {_reason(error)}")
            answer.__cause__ = error
        failed = isinstance(answer, DNSFailed)
        ttl = self._config.negative_ttl if failed else self._config.ttl
        with self._lock:
            del self._queries[key]
            self._answers[key] = (self._clock() + ttl, answer)
        if isinstance(answer, DNSFailed):
            raise answer
        return answer

    def _rotated(self, key: tuple[str, int], answer: list[AddrInfo]) -> list[AddrInfo]:
        """Within each family, begin one further than last time; the families keep their order."""
        with self._lock:
            turn = self._turns[key] = self._turns.get(key, -1) + 1
        families: dict[int, list[AddrInfo]] = {}
        for info in answer:
            families.setdefault(info[0], []).append(info)
        turned = {
            family: infos[turn % len(infos) :] + infos[: turn % len(infos)]
            for family, infos in families.items()
        }
        return [turned[info[0]].pop(0) for info in answer]


def _literal(host: str, port: int) -> AddrInfo | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if address.version == 6:
        scope = host.partition("%")[2]
        index = socket.if_nametoindex(scope) if scope and not scope.isdigit() else int(scope or 0)
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port, 0, index))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
