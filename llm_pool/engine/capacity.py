"""How many streams a connection to an origin is expected to carry, before it has said so itself."""

from __future__ import annotations

from collections import OrderedDict

from .config import Origin, PoolConfig
from .connection import Connection

__all__ = ["Capacities"]

MOST_ORIGINS = 1024


class Capacities:
    """What was learned of each origin; the pool dials by it. Used under the pool's lock."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._learned: OrderedDict[Origin, int] = OrderedDict()

    def expected(self, origin: Origin) -> int:
        """The streams of the next connection: callers of a cold pool share the one that is being dialed."""
        learned = self._learned.get(origin)
        if learned is not None:
            return learned
        http2 = self._config.http2
        if http2 == "prior-knowledge" or (http2 and origin.scheme == "https"):
            return self._config.limits.max_streams_per_connection
        return 1

    def learn(self, origin: Origin, capacity: int) -> None:
        """A connection to ``origin`` carries ``capacity`` streams."""
        self._learned[origin] = max(1, capacity)  # none is for a while only
        self._learned.move_to_end(origin)
        if len(self._learned) > MOST_ORIGINS:
            self._learned.popitem(last=False)

    def of_new(self, origin: Origin, connection: Connection) -> int:
        """The streams to begin with on a new connection.

        An HTTP/2 server's limit is the same on each of its connections, and known before it repeats it.
        """
        if connection.announced:
            self.learn(origin, connection.capacity)
            return connection.capacity
        return min(self._learned.get(origin, connection.capacity), connection.capacity)
