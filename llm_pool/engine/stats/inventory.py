"""The connections of a pool, one by one."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Origin
from ..homes.portal import is_portal
from ..ledger.ledger import Ledger

__all__ = ["ConnectionInfo", "list_connections"]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One connection at one moment. Those that are being dialed are only counted: see ``PoolStats``.

    ``state`` is "in use", "idle" or "closing"; ``age`` in seconds; ``streams`` the calls that it carries;
    ``home`` is "portal" or "server loop".
    """

    origin: Origin
    state: str
    age: float
    streams: int
    home: str


def list_connections(ledger: Ledger, now: float) -> list[ConnectionInfo]:
    """Read the books, under their lock. The oldest first; costs what there is."""
    return [
        ConnectionInfo(
            origin=entry.lane.origin,
            state="closing" if entry.closing else "in use" if entry.streams else "idle",
            age=now - entry.opened_at,
            streams=entry.streams,
            home="portal" if is_portal(entry.lane.home) else "server loop",
        )
        for entry in ledger.entries()
    ]
