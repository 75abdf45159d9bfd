"""How many streams a connection to an origin is expected to carry, before the server announces it."""

from __future__ import annotations

from collections import OrderedDict

from .config import Origin, PoolConfig
from .connection import Connection

__all__ = ["Capacities"]

MAX_ORIGINS = 1024


class Capacities:
    """The number of streams that one connection to an origin carries, as last learned from its server.

    Remembers up to ``MAX_ORIGINS`` origins. Call its methods with the pool's lock held.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._learned: OrderedDict[Origin, int] = OrderedDict()

    def expected(self, origin: Origin) -> int:
        """The streams that the next connection to ``origin`` is expected to carry.

        For an origin without a connection so far, HTTP/2 is assumed wherever the pool offers it. The callers
        of a cold pool then share a dial, instead of starting one each.
        """
        learned = self._learned.get(origin)
        if learned is not None:
            return learned
        http2 = self._config.http2
        if http2 == "prior-knowledge" or (http2 and origin.scheme == "https"):
            return self._config.limits.max_streams_per_connection
        return 1

    def learn(self, origin: Origin, capacity: int) -> None:
        """Remember that a connection to ``origin`` carries ``capacity`` streams."""
        self._learned[origin] = max(1, capacity)  # 0 holds for a short time only (RFC 9113, section 6.5.2)
        self._learned.move_to_end(origin)
        if len(self._learned) > MAX_ORIGINS:
            self._learned.popitem(last=False)

    def initial(self, origin: Origin, connection: Connection) -> int:
        """The streams that a new connection to ``origin`` may carry at first.

        This is the number that the server has announced. Before that, it is no more than on the last
        connection: an HTTP/2 server usually announces the same number on each.
        """
        if connection.announced:
            self.learn(origin, connection.capacity)
            return connection.capacity
        return min(self._learned.get(origin, connection.capacity), connection.capacity)
