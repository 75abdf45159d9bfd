"""The configuration of a pool: limits, timeouts, DNS, TLS and proxy. ``conf`` validates the values."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llm_pool.redaction import Hidden

__all__ = ["DNS", "TLS", "Limits", "Origin", "PoolConfig", "Timeouts", "is_loopback", "is_loopback_address"]

DEFAULT_PORTS = {"http": 80, "https": 443}


def is_loopback_address(text: str) -> bool:
    """Return whether ``text`` is a loopback IP address. Returns False for a name."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback address, or a name reserved for one (RFC 6761, section 6.3).

    ``host`` must be in lower case. No name is looked up.
    """
    return is_loopback_address(host) or host == "localhost" or host.endswith(".localhost")


class Origin(NamedTuple):
    """The scheme, host and port that a request is sent to (RFC 6454). Calls to one origin share connections.

    ``scheme``    "http" or "https"
    ``host``      a name in lower case, an IPv4 address, or an IPv6 address without brackets
    ``port``      1 to 65535
    ``tls_name``  the name for TLS, in SNI and in the server's certificate; None if it is ``host``. A part of
                  the origin, so that a connection that was made for one name carries no call for another
    """

    scheme: str
    host: str
    port: int
    tls_name: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == DEFAULT_PORTS.get(self.scheme):
            return f"{self.scheme}://{host}"
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a pool can have, for how long, and how large an answer can be. None: no limit.

    ``max_connections``             connections of the pool in this process, including those that are being
                                    dialed or closed
    ``max_keepalive_connections``   idle connections that the pool keeps; it closes the others 2 seconds after
                                    their last call, at once if this is 0
    ``keepalive_expiry``            seconds after which an idle connection is closed, fewer if the server's
                                    ``Keep-Alive`` header says so; 0 keeps no idle connection
    ``min_connections``             connections that ``Pool.prewarm`` opens to an origin and keeps open
    ``max_lifetime``                seconds after which a connection accepts no new calls; for each connection
                                    a random 0 to 10 % less
    ``max_waiting``                 callers that can wait in the queue; the next call fails with PoolFull. A
                                    caller that waits only for a dial in progress does not count
    ``max_connections_per_host``    like ``max_connections``, but for each origin
    ``max_streams_per_connection``  calls that an HTTP/2 connection carries at a time; fewer if the server
                                    allows fewer
    ``max_answer_bytes``            bytes of an answer that the pool collects for its caller: of a whole body,
                                    or of a stream of chunks; counted after decompression. Answers that the
                                    caller reads piece by piece have no limit
    """

    max_connections: int = 100
    max_keepalive_connections: int = 20
    keepalive_expiry: float | None = 30.0
    min_connections: int = 0
    max_lifetime: float | None = 600.0
    max_waiting: int = 1000
    max_connections_per_host: int | None = None
    max_streams_per_connection: int = 10
    max_answer_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each part of a call can take, in seconds. None means no limit.

    ``connect``         a dial: DNS, TCP, the proxy's tunnel and TLS
    ``read``            the longest time without a byte of the response from the server
    ``write``           the longest time in which the server accepts no byte of the request
    ``pool``            the whole wait for a connection: queue and dial
    ``total``           the whole call, from its start to the last byte of the response
    ``first_token``     of a model's stream, the longest wait for the first content after the request is sent
    ``between_tokens``  of a model's stream, the longest wait for the next content; see ``ContentTimer``
    """

    connect: float | None = 5.0
    read: float | None = 60.0
    write: float | None = 10.0
    pool: float | None = 10.0
    total: float | None = None
    first_token: float | None = 600.0
    between_tokens: float | None = 300.0


@dataclass(frozen=True, slots=True)
class DNS:
    """The pool's DNS cache, and the resolver that fills it.

    ``ttl``           seconds for which the addresses of a name are kept
    ``negative_ttl``  seconds for which a failed lookup is kept
    ``resolver``      "system" (``getaddrinfo``), or "aiodns" (needs the package aiodns)
    """

    ttl: float = 300.0
    negative_ttl: float = 1.0
    resolver: Literal["system", "aiodns"] = "system"


@dataclass(frozen=True, slots=True)
class TLS:
    """The certificates that the pool accepts, and the certificate that it presents.

    ``verify``       whether to verify the server's certificate and host name
    ``ca_file``      path of a PEM file with the authorities to trust, instead of the system's
    ``client_cert``  path of a PEM file with certificate and key; or two paths, (certificate, key); or two
                     paths and the password of the key, (certificate, key, password)
    ``context``      an SSLContext to use as it is; the other three fields are then ignored
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

    ``limits``            how many connections the pool can have, for how long, and how large an answer can be
    ``timeouts``          the timeouts of calls that do not set their own
    ``dns``               the DNS cache and its resolver
    ``tls``               the certificates
    ``http2``             True: offer HTTP/2 by ALPN, over TLS only. False: use HTTP/1.1 only.
                          "prior-knowledge": use HTTP/2 without negotiation, also without TLS where no
                          proxy forwards the request (RFC 9113, section 3.3)
    ``proxy``             URL of a proxy: http, https (TLS to the proxy) or socks5; None: use the proxy from
                          the environment; "": use no proxy
    ``uds``               path of a Unix domain socket to connect to, instead of host and port
    ``warn_utilization``  the pool logs a warning when this fraction of ``max_connections`` (0.0 to 1.0) is in
                          use; None: never
    ``leak_threshold``    the pool logs a response that is still open after this many seconds; None: never
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
