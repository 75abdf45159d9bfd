"""What a pool is told: limits, timeouts, DNS, TLS, proxy. Plain values, checked where they are read."""

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
    """Where a request goes: scheme, host, port (RFC 6454). Connections are shared within one origin."""

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
    """How many connections a pool may hold, and for how long. Durations in seconds; None is unbounded."""

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
    """How long a call may take, in seconds, part by part; None waits for ever.

    ``pool`` covers the whole wait for a connection: queue, DNS and dial. ``connect`` bounds one dial,
    ``read`` the silence between two pieces of a response, ``write`` an upload that makes no progress,
    ``total`` the call from its start to the last byte of its answer.
    """

    connect: float | None = 5.0
    read: float | None = 60.0
    write: float | None = 10.0
    pool: float | None = 10.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class DNS:
    """How long the DNS cache keeps an answer (``ttl``) and a failure (``negative_ttl``), in seconds.

    ``resolver`` is who is asked beneath it; "aiodns" needs the package of that name.
    """

    ttl: float = 300.0
    negative_ttl: float = 1.0
    resolver: Literal["system", "aiodns"] = "system"


@dataclass(frozen=True, slots=True)
class TLS:
    """Whom to trust. ``ca_file`` and ``client_cert`` (certificate, key, password) are paths to PEM files.

    A ready ``context`` takes the place of all the rest.
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
    """All that one pool is told.

    ``http2``: offer it by ALPN; "prior-knowledge" speaks it without asking, over cleartext too.
    ``proxy`` is the URL of an HTTP proxy; None reads the usual environment variables, and "" uses none.
    ``uds`` is the path of a Unix domain socket that takes the place of name and port.
    ``warn_utilization`` (0.0 to 1.0) is where a warning is logged, ``leak_threshold`` after how many seconds
    a response that is held is; None for never.
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
