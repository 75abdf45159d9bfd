"""The DNS cache: one query for many askers, answers and failures kept for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from math import inf

from aiohappyeyeballs import AddrInfoType

from llm_pool.exceptions import DNSFailed, copy_of, reason

from ..config import DNS
from ..loops.threads import in_thread

__all__ = ["Resolver", "check_host"]

Answer = list[AddrInfoType] | DNSFailed
LookUp = Callable[[str, int], list[AddrInfoType]]

MAX_NAMES = 1000  # names remembered; callers choose them
HOST = re.compile(r"[!-~]+")  # the system's resolver cuts a name at a NUL


def check_host(host: str, port: int) -> None:
    """Refuse what is no host and port, before anything is made of it. Raises DNSFailed."""
    if not HOST.fullmatch(host):
        raise DNSFailed(f"{host!r} is not a valid host name; write international names in their xn-- form")
    if not 0 < port < 65536:
        raise DNSFailed(f"{port} is no port of {host!r}: ports are 1 to 65535")


class Resolver:
    """Names to addresses, through the system's resolver or aiodns, on a thread and never on an event loop.

    Shared by all homes of a pool. Each lookup starts at the next address, so that connections spread.
    """

    def __init__(self, config: DNS) -> None:
        self._config = config
        self._look_up = _way(config)
        self._lock = threading.Lock()
        self._names: dict[tuple[str, int], _Name] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """The addresses of ``host``, as ``getaddrinfo`` gives them. Raises DNSFailed."""
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        with self._lock:
            name = self._name(host, port)
            answer = name.answer if time.monotonic() < name.expires_at else None
            query = name.query
            if answer is None and query is None:
                query = name.query = in_thread(self._ask, host, port, name)
        if answer is None:
            assert query is not None
            answer = await asyncio.wrap_future(query)
        if isinstance(answer, DNSFailed):
            raise copy_of(answer)
        with self._lock:
            name.turn += 1
        return _rotated(answer, name.turn)

    def forget(self, host: str, port: int) -> None:
        """Drop the addresses of ``host``: no connection to them could be made."""
        with self._lock:
            name = self._names.get((host, port))
            if name is not None and not isinstance(name.answer, DNSFailed):
                name.expires_at = -inf

    def _name(self, host: str, port: int) -> _Name:
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            name = self._names[host, port] = _Name()
        return name

    def _ask(self, host: str, port: int, name: _Name) -> Answer:
        answer = self._answer(host, port)
        ttl = self._config.negative_ttl if isinstance(answer, DNSFailed) else self._config.ttl
        with self._lock:
            name.query = None
            name.answer = answer
            name.expires_at = time.monotonic() + ttl
        return answer

    def _answer(self, host: str, port: int) -> Answer:
        look_up = _by_system if "%" in host else self._look_up  # a zone is a matter of this machine's
        try:
            return look_up(host, port)
        except (OSError, UnicodeError) as error:  # the latter for labels that are empty or too long
            failure = DNSFailed(f"the name {host!r} has no address: {reason(error)}")
            failure.__cause__ = error.with_traceback(None)
            return failure


class _Name:
    """What is known of one name: the last answer, and the question on its way."""

    __slots__ = ("answer", "expires_at", "query", "turn")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.expires_at = -inf
        self.query: Future[Answer] | None = None
        self.turn = -1  # lookups so far; outlives the answer, or a bad first address would always be first


def _way(config: DNS) -> LookUp:
    if config.resolver == "system":
        return _by_system
    from .aiodns import look_up  # noqa: PLC0415  an extra of the distribution's

    return look_up


def _by_system(host: str, port: int) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


def _rotated(answer: list[AddrInfoType], turn: int) -> list[AddrInfoType]:
    """Within each family, begin ``turn`` addresses further; the families keep their order."""
    families: dict[int, list[AddrInfoType]] = {}
    for info in answer:
        families.setdefault(info[0], []).append(info)
    turned = {
        family: iter(infos[turn % len(infos) :] + infos[: turn % len(infos)])
        for family, infos in families.items()
    }
    return [next(turned[info[0]]) for info in answer]


def _literal(host: str, port: int) -> AddrInfoType | None:
    """An address that needs no look-up. One with a zone does: only the system knows its interfaces."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    if address.scope_id is not None:
        return None
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
