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
    """What a TLS handshake agreed on, and the server's certificate.

    ``version``    the TLS version, such as "TLSv1.3"
    ``alpn``       the protocol that ALPN selected, "h2" or "http/1.1"; None if ALPN selected none
    ``issuer``     the organization that issued the certificate, or its common name; None if the certificate
                   has neither, or was not verified
    ``days_left``  full days until the certificate expires; None if the certificate was not verified
    """

    version: str | None
    alpn: str | None
    issuer: str | None
    days_left: int | None


@dataclass(slots=True)
class DialResult:
    """The result of a dial.

    ``steps``      how long each part of the dial took, and the IP addresses that the lookup returned
    ``failed_in``  the part that failed: "dns", "tcp", "tunnel" or "tls"; None if the dial succeeded
    ``error``      the error with which the dial failed; None if the dial succeeded
    ``peer``       IP address and port of the server or proxy, such as "192.0.2.1:443"; None for a Unix domain
                   socket or a failed dial
    ``session``    the ``Session`` of the TLS handshake; None without TLS or for a failed dial
    """

    steps: DialSteps = field(default_factory=DialSteps)
    failed_in: str | None = None
    error: LLMPoolError | None = None
    peer: str | None = None
    session: Session | None = None

    @property
    def seconds(self) -> float:
        """The duration of all parts of the dial together, in seconds. A failed part counts too."""
        return sum(self.steps.seconds.values())


async def dial(config: PoolConfig, origin: Origin) -> DialResult:
    """Open a connection to ``origin`` with the settings in ``config``, read its properties, and close it.

    If the dial fails, its error is not raised: the result contains it.
    """
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
    """Return the part of a dial that ``error`` belongs to: "dns", "tcp", "tunnel" or "tls".

    For an error that was raised while no part was in progress: a setting is invalid (the host's name, the
    proxy's URL, a TLS file), or the connect timeout ended at that moment.
    """
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
    """An ``Owner`` that ignores all facts, for a connection that is in no ledger."""

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...
