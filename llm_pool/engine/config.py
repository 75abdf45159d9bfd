"""The configuration of a pool: limits, timeouts, DNS, TLS, proxy. Plain values; ``conf`` validates them."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llm_pool.redaction import Hidden

__all__ = ["DNS", "TLS", "Limits", "Origin", "PoolConfig", "Timeouts", "is_loopback", "is_loopback_address"]

DEFAULT_PORTS = {"http": 80, "https": 443}


def is_loopback_address(text: str) -> bool:
    """Whether ``text`` is an IP address of this machine's loopback interface. False for a name."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address, or a name reserved for one (RFC 6761). Resolves nothing.

    ``host`` is in lower case.
    """
    return is_loopback_address(host) or host == "localhost" or host.endswith(".localhost")


class Origin(NamedTuple):
    """Where a request goes (RFC 6454). Calls to the same origin share connections.

    ``scheme``  "http" or "https"
    ``host``    a name in lower case, or an IP address, an IPv6 one without brackets
    ``port``    1 to 65535
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == DEFAULT_PORTS.get(self.scheme):
            return f"{self.scheme}://{host}"
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a pool may hold, and for how long. None means no limit.

    ``max_connections``             connections in the process: being dialed, open and closing
    ``max_keepalive_connections``   idle connections that are kept; more are closed
    ``keepalive_expiry``            seconds after which an idle connection is closed; 0 keeps none
    ``min_connections``             connections that ``Pool.prewarm`` opens to an origin and keeps open
    ``max_lifetime``                seconds, less a random 0 to 10 %, after which a connection accepts no new
                                    calls
    ``max_waiting``                 callers that may wait in the queue; the next gets PoolFull. A caller that
                                    a dial in progress will serve does not count
    ``max_connections_per_host``    as ``max_connections``, for each origin
    ``max_streams_per_connection``  calls that one HTTP/2 connection carries at a time; fewer if the server
                                    allows fewer
    """

    max_connections: int = 100
    max_keepalive_connections: int = 20
    keepalive_expiry: float | None = 30.0
    min_connections: int = 0
    max_lifetime: float | None = 600.0
    max_waiting: int = 1000
    max_connections_per_host: int | None = None
    max_streams_per_connection: int = 10


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each part of a call may take, in seconds. None means no limit.

    ``connect``  one dial: DNS, TCP, the proxy's tunnel, TLS
    ``read``     the time in which the server sends nothing
    ``write``    the time in which the server accepts nothing of the request
    ``pool``     the whole wait for a connection: queue and dial
    ``total``    the whole call, from its start to the last byte of the answer
    """

    connect: float | None = 5.0
    read: float | None = 60.0
    write: float | None = 10.0
    pool: float | None = 10.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class DNS:
    """The pool's DNS cache, and the resolver beneath it.

    ``ttl``           seconds that the addresses of a name are kept
    ``negative_ttl``  seconds that a failed look-up is kept
    ``resolver``      "system" (``getaddrinfo``), or "aiodns", which needs the package of that name
    """

    ttl: float = 300.0
    negative_ttl: float = 1.0
    resolver: Literal["system", "aiodns"] = "system"


@dataclass(frozen=True, slots=True)
class TLS:
    """Which certificates to accept, and which to present.

    ``verify``       whether to verify the server's certificate and host name
    ``ca_file``      path of a PEM file: the authorities to trust in place of the system's
    ``client_cert``  path of a PEM file with certificate and key, or (certificate, key), or (certificate, key,
                     password): two paths, and the password of the key
    ``context``      an SSLContext to use in place of all of these
    """

    verify: bool = True
    ca_file: str | None = None
    client_cert: str | tuple[str, str] | tuple[str, str, str] | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if isinstance(self.client_cert, tuple) and len(self.client_cert) == 3:
            certificate, key, password = self.client_cert
            object.__setattr__(self, "client_cert", (certificate, key, Hidden(password)))


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The whole configuration of one pool.

    ``limits``            numbers of connections, and how long they are kept
    ``timeouts``          timeouts of the calls that set none of their own
    ``dns``               the DNS cache and its resolver
    ``tls``               certificates
    ``http2``             True: offer HTTP/2 by ALPN, over TLS only. False: use HTTP/1.1 only.
                          "prior-knowledge": use HTTP/2 without negotiation, over cleartext too (RFC
                          9113, section 3.3)
    ``proxy``             URL of an HTTP proxy; None: as the environment variables say; "": no proxy
    ``uds``               path of a Unix domain socket to connect to, in place of host and port
    ``warn_utilization``  fraction of ``max_connections``, 0.0 to 1.0, that is in use when a warning is
                          logged; None: never
    ``leak_threshold``    seconds after which a response that is still held is logged; None: never
    """

    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    dns: DNS = DNS()
    tls: TLS = TLS()
    http2: bool | Literal["prior-knowledge"] = True
    proxy: str | None = field(default=None, repr=False)
    uds: str | None = None
    warn_utilization: float | None = 0.8
    leak_threshold: float | None = None
