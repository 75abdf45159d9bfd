"""The servers and pools of a soak, and the disturbances from outside: drains, refusing servers, prewarms."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llm_pool.calling.pool import LLMPool
from llm_pool.conf.settings import load
from llm_pool.engine.config import TLS, Limits, Origin, PoolConfig, Timeouts
from llm_pool.engine.pool import Pool
from testbed.http2 import offering_http2
from testbed.tls import Certificates
from tests.fixtures.internals import open_connections_of
from tests.soak.calls import Place
from tests.soak.server import SoakServer, play_http11
from tests.soak.server_http2 import play_http2

if TYPE_CHECKING:
    from tests.soak.record import Record

__all__ = ["World"]

MAX_CONNECTIONS = 8
"""The limit of each pool."""
LIMITS = Limits(
    max_connections=MAX_CONNECTIONS,
    max_keepalive_connections=5,
    keepalive_expiry=0.5,
    max_lifetime=3.0,
    max_waiting=10,
    max_connections_per_host=4,
    max_streams_per_connection=4,
)
TIMEOUTS = Timeouts(connect=0.5, read=0.4, write=0.4, pool=0.5, total=3.0)


class World:
    """The servers and pools of a soak; they run within its block.

    ``servers``  all servers
    ``pools``    the engines' pools
    ``places``   where callers may send calls
    """

    def __init__(self, record: Record, seed: str) -> None:
        self.record, self._seed = record, seed
        self.servers: list[SoakServer] = []
        self.pools: list[Pool] = []
        self.places: list[Place] = []
        self._running = contextlib.ExitStack()
        self._stopped = threading.Event()
        self._disturber = threading.Thread(target=self._disturb, name="soak disturber", daemon=True)

    def __enter__(self) -> Self:
        directory = Path(self._running.enter_context(tempfile.TemporaryDirectory()))
        certificates = Certificates(directory)
        chat = self._serve(play_http11)
        chat2 = self._serve(play_http2, tls=offering_http2(certificates))
        several = [
            self._serve(play_http11),
            self._serve(play_http11),
            self._serve(play_http11, tls=certificates.good),
        ]
        self._service("chat", chat, certificates, min_connections=1)
        self._service("chat, HTTP/2", chat2, certificates)
        config = PoolConfig(LIMITS, TIMEOUTS, tls=TLS(ca_file=certificates.ca_file), proxy="")
        pool = self._add(Pool(config, "several"), several)
        origins = [
            Origin(server.scheme, host, server.port) for server, host in zip(several, HOSTS, strict=True)
        ]
        self.places.append(Place(pool, origins))
        self._disturber.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            while server.errors:
                self.record.violation(f"a server's script failed: {server.url}", server.errors.pop())
        self._running.close()

    def held(self) -> int:
        """The number of connections that pools have not closed, by the kernel's state at the servers."""
        return sum(
            _is_held(connection) for server in self.servers for connection in open_connections_of(server)
        )

    def calm_down(self) -> None:
        """End the disturbances and the faults: every server responds correctly from now on."""
        self._stopped.set()
        self._disturber.join()
        for server in self.servers:
            server.calm = True

    def _serve(self, play: Any, **options: Any) -> SoakServer:
        rng = random.Random(f"{self._seed}/server {len(self.servers)}")
        server = self._running.enter_context(SoakServer(play, self.record, rng, **options))
        self.servers.append(server)
        return server

    def _service(self, name: str, server: SoakServer, certificates: Certificates, **limits: int) -> None:
        all_limits = {**_fields(LIMITS), "max_connections_per_host": None, **limits}
        settings = {
            "BASE_URL": f"{server.url}/v1",
            "API_KEY": "key",
            "MODEL": "m",
            "PROXY": "",
            "LIMITS": all_limits,
            "TIMEOUTS": _fields(TIMEOUTS),
            "TLS": {"ca_file": certificates.ca_file},
        }
        service = LLMPool(load({"default": settings})["default"])
        service.engine.name = name
        engine = self._add(service.engine, [server])
        self.places.append(Place(engine, [Origin(server.scheme, server.host, server.port)], service))

    def _add(self, pool: Pool, servers: list[SoakServer]) -> Pool:
        def count() -> None:
            connections = [connection for server in servers for connection in open_connections_of(server)]
            # All were open before the first check, so those that are still held were open at the same time.
            self.record.peak(pool.name, sum(map(_is_held, connections)), MAX_CONNECTIONS)

        for server in servers:
            server.opened = count
        self.pools.append(pool)
        return pool

    # Disturbances, on a separate thread.

    def _disturb(self) -> None:
        rng = random.Random(f"{self._seed}/weather")
        while not self._stopped.wait(rng.random()):
            try:
                rng.choice((self._drain, self._refuse, self._prewarm, self._check_stats))(rng)
            except BaseException as error:  # noqa: BLE001 - any error is a violation
                self.record.violation("a disturbance failed", error)

    def _drain(self, rng: random.Random) -> None:
        pool = rng.choice(self.pools)
        self.record.event("drains")
        self.record.event("drains that ended in time" if pool.drain(0.5) else "drains that did not")

    def _refuse(self, rng: random.Random) -> None:
        server = rng.choice(self.servers)
        server.refuse()
        self.record.event("servers that refuse for a while")
        self._stopped.wait(rng.random() * 0.5)
        server.listen_again()

    def _prewarm(self, rng: random.Random) -> None:
        place = rng.choice(self.places)
        if place.service is not None:
            asyncio.run(place.service.aprewarm())
            self.record.event("prewarms")

    def _check_stats(self, rng: random.Random) -> None:
        for pool in self.pools:
            stats = pool.stats()
            if (
                stats.connections > MAX_CONNECTIONS
                or min(stats.in_use, stats.idle, stats.dialing, stats.waiting) < 0
            ):
                self.record.violation(f"the stats of pool {pool.name!r} are impossible: {stats}")


HOSTS = ("127.0.0.1", "localhost", "127.0.0.1")


def _is_held(connection: Any) -> bool:
    try:
        return bool(connection.still_held)
    except OSError:  # its server's thread has just closed it
        return False


def _fields(values: Any) -> dict[str, Any]:
    return {name: getattr(values, name) for name in values.__slots__}
