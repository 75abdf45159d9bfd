"""The DNS cache. Concurrent lookups of a name share one query. Results and failures are kept for a TTL."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from math import inf

from aiohappyeyeballs import AddrInfoType

from llm_pool.exceptions import DNSFailed, copy_of, reason

from ..clock import monotonic
from ..config import DNS, is_loopback
from ..loops.greenlets import original
from ..loops.threads import ThreadResult, in_thread, new_lock

__all__ = ["Resolver", "check_host"]

LookupResult = list[AddrInfoType] | DNSFailed
LookupFunction = Callable[[str, int], list[AddrInfoType]]

MAX_NAMES = 1000  # names in the cache; limited, since callers choose the names
LOOPBACK = ("127.0.0.1", "::1")
HOST = re.compile(r"[!-~]+")  # without NUL: ``getaddrinfo`` ignores all that follows a NUL


def check_host(host: str, port: int) -> None:
    """Raise DNSFailed if ``host`` cannot be a host name, or if ``port`` is not in 1 to 65535."""
    if not HOST.fullmatch(host):
        raise DNSFailed(f"{host!r} is not a valid host name; write international names in their xn-- form")
    if not 0 < port < 65536:
        raise DNSFailed(f"{port} is no port of {host!r}: ports are 1 to 65535")


class Resolver:
    """Resolves names through ``getaddrinfo`` or aiodns, and caches the results.

    Each query runs on a thread of its own, so that no event loop blocks. All host loops of a pool share a
    resolver. The addresses of a name are rotated at each call of ``resolve``, so that connections are spread
    over them.
    """

    def __init__(self, config: DNS) -> None:
        self._config = config
        self._look_up = _lookup_function(config)
        self._lock = new_lock()
        self._names: dict[tuple[str, int], _CachedName] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the addresses of ``host`` and ``port`` in the form of ``socket.getaddrinfo``.

        The addresses come from the cache or from a query. An IP address is returned without a query. Raises
        DNSFailed if the query fails, or if the cache has a failure.
        """
        literal = _ip_literal(host, port)
        if literal is not None:
            return [literal]
        with self._lock:
            name = self._cached_name(host, port)
            result = name.result if monotonic() < name.expires_at else None
            query = name.query
            if result is None and query is None:
                query = name.query = in_thread(self._query, host, port, name)
        if result is None:
            assert query is not None
            result = await query.get()
        if isinstance(result, DNSFailed):
            raise copy_of(result)
        with self._lock:
            name.rotation += 1
        return _rotated(result, name.rotation)

    def forget(self, host: str, port: int) -> None:
        """Make the cached addresses of ``host`` and ``port`` expire now. Called after a dial has failed."""
        with self._lock:
            name = self._names.get((host, port))
            if name is not None and not isinstance(name.result, DNSFailed):
                name.expires_at = -inf

    def _cached_name(self, host: str, port: int) -> _CachedName:
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            name = self._names[host, port] = _CachedName()
        return name

    def _query(self, host: str, port: int, name: _CachedName) -> LookupResult:
        result = self._lookup_result(host, port)
        ttl = self._config.negative_ttl if isinstance(result, DNSFailed) else self._config.ttl
        with self._lock:
            name.query = None
            name.result = result
            name.expires_at = monotonic() + ttl
        return result

    def _lookup_result(self, host: str, port: int) -> LookupResult:
        # An IPv6 zone ("fe80::1%eth0") names an interface of this machine: only the system resolves it.
        look_up = _system_look_up if "%" in host else self._look_up
        try:
            return _with_loopback(host, port, look_up(host, port))
        except (
            OSError,
            UnicodeError,
        ) as error:  # UnicodeError: a label is empty or longer than 63 characters
            if addresses := _with_loopback(host, port, []):
                return addresses
            failure = DNSFailed(f"the name {host!r} has no address: {reason(error)}")
            failure.__cause__ = error.with_traceback(None)
            return failure


class _CachedName:
    """The cache of one name and port.

    ``result``      the last result; None before the first query has ended
    ``expires_at``  when the result expires, in seconds of the monotonic clock
    ``query``       the query in progress, or None
    ``rotation``    by how many places the addresses are rotated: one more at each call of ``resolve``. The
                    number is kept when the result expires. Otherwise an address that cannot be reached could
                    come first again
    """

    __slots__ = ("expires_at", "query", "result", "rotation")

    def __init__(self) -> None:
        self.result: LookupResult | None = None
        self.expires_at = -inf
        self.query: ThreadResult[LookupResult] | None = None
        self.rotation = -1


def _lookup_function(config: DNS) -> LookupFunction:
    if config.resolver == "system":
        return _system_look_up
    from .aiodns import look_up  # noqa: PLC0415  an optional dependency

    return look_up


def _system_look_up(host: str, port: int) -> list[AddrInfoType]:
    getaddrinfo = original("socket", "getaddrinfo")
    return list(getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


def _with_loopback(host: str, port: int, found: list[AddrInfoType]) -> list[AddrInfoType]:
    """Return ``found``, and for ``localhost`` or a name below it this machine's other loopback addresses.

    These names are loopback whatever the resolver says (RFC 6761, section 6.3); resolvers that have no answer
    are common. A name that the resolver leads to another machine, as Docker's can, stays as it is.
    """
    addresses = [info[4][0] for info in found]
    is_local_name = "%" not in host and is_loopback(host.rstrip(".").lower())
    if not is_local_name or not all(map(is_loopback, addresses)):
        return found
    missing = [address for address in LOOPBACK if address not in addresses and _can_bind(address)]
    return found + [info for address in missing if (info := _ip_literal(address, port)) is not None]


def _can_bind(address: str) -> bool:
    """Return whether this machine has ``address``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with original("socket", "socket")(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def _rotated(addresses: list[AddrInfoType], rotation: int) -> list[AddrInfoType]:
    """Return the addresses, those of each family (IPv4, IPv6) rotated by ``rotation``.

    Each position in the list keeps its family.
    """
    families: dict[int, list[AddrInfoType]] = {}
    for info in addresses:
        families.setdefault(info[0], []).append(info)
    rotated = {
        family: iter(infos[rotation % len(infos) :] + infos[: rotation % len(infos)])
        for family, infos in families.items()
    }
    return [next(rotated[info[0]]) for info in addresses]


def _ip_literal(host: str, port: int) -> AddrInfoType | None:
    """Return ``host`` in the form of ``socket.getaddrinfo`` if it is an IP address.

    Return None for a name, and for an IPv6 address with a zone: both need a lookup.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    if address.scope_id is not None:
        return None
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
