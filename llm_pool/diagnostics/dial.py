"""One dial to a pool's provider, watched: through the pool's own resolver, dialer, proxy and TLS settings."""

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
    """What TLS agreed on, and who vouches for the server; unverified, nobody: None."""

    version: str | None
    alpn: str | None
    issuer: str | None
    days_left: int | None


@dataclass(slots=True)
class DialResult:
    """How the dial went. ``failed_in`` is the step that ``error`` is of; ``peer`` is where the socket led."""

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
    """Dial, look, and close. Raises nothing that has to do with the network: the result tells."""
    host_loop = host_loop_of_caller()
    return await host_loop.arun(_dial, host_loop, config, origin)


async def _dial(host_loop: HostLoop, config: PoolConfig, origin: Origin) -> DialResult:
    tried = DialResult()
    try:
        connection = await Dialer(config).dial(
            origin, host_loop, _Nobody(), config.timeouts.connect, tried.steps
        )
    except LLMPoolError as error:
        tried.error = error
        tried.failed_in = tried.steps.current or _step_of(error)
        return tried
    try:
        _look(tried, connection)
    finally:
        connection.close()
    return tried


def _step_of(error: LLMPoolError) -> str:
    """Where a dial failed that did not come to its first step: settings that cannot be used."""
    kinds = {DNSFailed: "dns", TLSFailed: "tls", ProxyFailed: "tunnel"}
    return next((step for kind, step in kinds.items() if isinstance(error, kind)), "tcp")


def _look(tried: DialResult, connection: Connection) -> None:
    assert connection.transport is not None
    peer = connection.transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
        tried.peer = f"{host}:{peer[1]}"
    tls: ssl.SSLObject | None = connection.transport.get_extra_info("ssl_object")
    if tls is not None:
        tried.session = _session(tls)


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


class _Nobody:
    """The owner of a connection that is in no ledger."""

    def released(self, entry: Entry, *, reusable: bool, hint: float | None) -> None: ...
    def due(self, entry: Entry) -> None: ...
    def resized(self, entry: Entry, capacity: int) -> None: ...
    def retired(self, entry: Entry, reason: str) -> None: ...
    def lost(self, entry: Entry) -> None: ...
    def dialed(self, entry: Entry, seconds: float) -> None: ...
    def dial_failed(self, entry: Entry, error: LLMPoolError) -> None: ...
