"""Lists the connections of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Origin
from ..ledger.ledger import Ledger
from ..loops.portal import is_portal

__all__ = ["ConnectionInfo", "list_connections"]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One connection at one moment. Dials are not listed: ``PoolStats.dialing`` counts them.

    ``origin``   scheme, host and port
    ``state``    "in use", "idle" or "closing"
    ``age``      seconds since it was opened
    ``streams``  calls that it carries now
    ``loop``     the event loop that hosts it: "portal" or "server loop"
    """

    origin: Origin
    state: str
    age: float
    streams: int
    loop: str


def list_connections(ledger: Ledger, now: float) -> list[ConnectionInfo]:
    """Return every connection, the oldest first. Call it with the coordinator's lock held. O(connections)."""
    return [
        ConnectionInfo(
            origin=entry.lane.origin,
            state="closing" if entry.closing else "in use" if entry.streams else "idle",
            age=now - entry.opened_at,
            streams=entry.streams,
            loop="portal" if is_portal(entry.lane.host_loop) else "server loop",
        )
        for entry in ledger.entries()
    ]
