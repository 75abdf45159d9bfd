"""Makes one timed dial to a pool's provider, with the pool's settings for DNS, proxy and TLS."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import Any

from llm_pool.engine.config import Origin, PoolConfig
from llm_pool.engine.connection import Connection
from llm_pool.engine.dialer.dialer import Dialer
from llm_pool.engine.dialer.steps import DialSteps
from llm_pool.engine.ledger.state import Entry
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.loops.portal import host_loop_of_caller
from llm_pool.exceptions import DNSFailed, LLMPoolError, ProxyFailed, TLSFailed

__all__ = ["DialResult", "Session", "dial"]

DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Session:
    """A TLS session.

    ``version``    the TLS version: "TLSv1.3"
    ``alpn``       the protocol that ALPN selected; None if ALPN selected none
    ``issuer``     the issuer of the server's certificate; None if the certificate was not verified
    ``days_left``  full days until the certificate expires; None if the certificate was not verified
    """

    version: str | None
    alpn: str | None
    issuer: str | None
    days_left: int | None


@dataclass(slots=True)
class DialResult:
    """The result of a dial.

    ``steps``      how long each part took, and the addresses of the host
    ``failed_in``  the part that failed: "dns", "tcp", "tunnel" or "tls"; None if the dial succeeded
    ``error``      the error of that part; None if the dial succeeded
    ``peer``       IP address and port of the server or proxy; None for a Unix domain socket or a failed dial
    ``session``    the TLS session; None without TLS
    """

    steps: DialSteps = field(default_factory=DialSteps)
    failed_in: str | None = None
    error: LLMPoolError | None = None
    peer: str | None = None
    session: Session | None = None

    @property
    def seconds(self) -> float:
        """How long the dial took."""
        return sum(self.steps.seconds.values())


async def dial(config: PoolConfig, origin: Origin) -> DialResult:
    """Open a connection, read its properties and close it. An error of the dial is returned, not raised."""
    host_loop = host_loop_of_caller()
    return await host_loop.arun(_dial, host_loop, config, origin)


async def _dial(host_loop: HostLoop, config: PoolConfig, origin: Origin) -> DialResult:
    result = DialResult()
    try:
        connection = await Dialer(config).dial(
            origin, host_loop, _NullOwner(), config.timeouts.connect, result.steps
        )
    except LLMPoolError as error:
        result.error = error
        result.failed_in = result.steps.current or _step_of(error)
        return result
    try:
        _read_facts(result, connection)
    finally:
        connection.close()
    return result


def _step_of(error: LLMPoolError) -> str:
    """Return the step for an error that invalid settings caused before the dial's first step."""
    kinds = {DNSFailed: "dns", TLSFailed: "tls", ProxyFailed: "tunnel"}
    return next((step for kind, step in kinds.items() if isinstance(error, kind)), "tcp")


def _read_facts(result: DialResult, connection: Connection) -> None:
    assert connection.transport is not None
    peer = connection.transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
        result.peer = f"{host}:{peer[1]}"
    tls: ssl.SSLObject | None = connection.transport.get_extra_info("ssl_object")
    if tls is not None:
        result.session = _session(tls)


def _session(tls: ssl.SSLObject) -> Session:
    certificate: dict[str, Any] = tls.getpeercert() or {}
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    ends = certificate.get("notAfter")
    return Session(
        version=tls.version(),
        alpn=tls.selected_alpn_protocol(),
        issuer=issuer.get("organizationName") or issuer.get("commonName"),
        days_left=None if ends is None else int((ssl.cert_time_to_seconds(ends) - time.time()) // DAY),
    )


class _NullOwner:
    """The owner of a connection that is in no ledger: it ignores all facts."""

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...
