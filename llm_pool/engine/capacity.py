"""The number of streams that a connection is expected to carry, until its server announces the number."""

from __future__ import annotations

from collections import OrderedDict

from .config import Origin, PoolConfig
from .connection import Connection

__all__ = ["Capacities"]

MAX_ORIGINS = 1024


class Capacities:
    """Remembers for each origin how many streams a connection can carry, as a connection last reported.

    At most ``MAX_ORIGINS`` origins are remembered. Call the methods with the pool's lock held.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._learned: OrderedDict[Origin, int] = OrderedDict()

    def expected(self, origin: Origin) -> int:
        """Return how many streams the next connection to ``origin`` is expected to carry.

        If no number is remembered, return ``max_streams_per_connection`` where ``PoolConfig.http2`` allows
        HTTP/2, and 1 elsewhere. With HTTP/2, calls that arrive before the first connection is open then share
        one dial.
        """
        learned = self._learned.get(origin)
        if learned is not None:
            return learned
        http2 = self._config.http2
        if http2 == "prior-knowledge" or (http2 and origin.scheme == "https"):
            return self._config.limits.max_streams_per_connection
        return 1

    def learn(self, origin: Origin, capacity: int) -> None:
        """Remember that a connection to ``origin`` carries ``capacity`` streams. 0 is remembered as 1."""
        # A server announces 0 for a short time only (RFC 9113, section 6.5.2).
        self._learned[origin] = max(1, capacity)
        self._learned.move_to_end(origin)
        if len(self._learned) > MAX_ORIGINS:
            self._learned.popitem(last=False)

    def initial(self, origin: Origin, connection: Connection) -> int:
        """Return how many streams a new connection to ``origin`` can carry at first.

        If ``connection.capacity`` is certain (``connection.announced``), remember it and return it. Otherwise
        return the smaller of ``connection.capacity`` and the remembered number, if any: an HTTP/2 server
        usually announces the same number on each connection.
        """
        if connection.announced:
            self.learn(origin, connection.capacity)
            return connection.capacity
        return min(self._learned.get(origin, connection.capacity), connection.capacity)
